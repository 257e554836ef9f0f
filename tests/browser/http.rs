//! What browsers are told by headers, and how sessions and streams are bounded: without a browser.

use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::scene::{DRAFT, GOOD, Scene};

/// The most streams of events at once.
const STREAMS: usize = 64;

pub(crate) fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn sign_in(scene: &Scene, http: &Client, token: &str) -> Response {
    let form = format!("token={token}&to=%2Faudit");
    let request = http.post(scene.url("/sign-in")).header("origin", &scene.server.url);
    request.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap()
}

/// Signs in, and returns the cookie.
async fn cookie(scene: &Scene, http: &Client) -> String {
    cookie_of(scene, http, &scene.admin).await
}

/// The same, with this token.
pub(crate) async fn cookie_of(scene: &Scene, http: &Client, token: &str) -> String {
    let answer = sign_in(scene, http, token).await;
    assert_eq!((answer.status(), header(&answer, "location")), (StatusCode::SEE_OTHER, "/audit"));
    let cookie = header(&answer, "set-cookie");
    assert!(cookie.starts_with("cotter=") && cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(token));
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn browsers_are_told_to_load_nothing_from_elsewhere_and_to_keep_no_page() {
    let (scene, http) = (Scene::open().await, client());
    let page = http.get(scene.url("/sign-in")).send().await.unwrap();
    let policy = header(&page, "content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!(header(&page, "cache-control"), "no-store");
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    let text = page.text().await.unwrap();
    let script = text.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    let file = http.get(scene.url(script)).send().await.unwrap();
    assert_eq!(header(&file, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(http.get(scene.url("/static/dashboard.js")).send().await.unwrap().status(), 404);
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains(" onclick="));
}

/// A page that only shows what an act would do changes nothing, so a refusal of it is none of the audit trail.
#[tokio::test]
async fn a_preview_is_not_recorded_and_a_refused_act_is() {
    let (mut scene, http) = (Scene::open().await, client());
    let fleet = scene.fleet("greenhouse").await;
    let device = scene.device(fleet, 1, "board-1", json!({})).await;
    let cookie = cookie(&scene, &http).await;
    let fields = format!("device={device}&release=0000none");
    let action = scene.url(&format!("/fleets/{fleet}/actions/pin"));
    let page = http.get(format!("{action}?{fields}")).header("cookie", &cookie).send().await.unwrap();
    let text = page.text().await.unwrap();
    assert!(text.contains("0000none"), "{text}");
    let refused = async || {
        let trail = scene.get("/audit?limit=100").await;
        let refused = trail.as_array().unwrap().iter().filter(|entry| entry["result"] == "refused");
        refused.map(|entry| entry["request"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(refused().await, Vec::<String>::new());
    let csrf = text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = http.post(&action).header("cookie", &cookie).header("origin", &scene.server.url);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let answer = form.body(format!("{fields}&csrf={csrf}")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(refused().await, [format!("POST /fleets/{fleet}/actions/pin")]);
}

#[tokio::test]
async fn wrong_tokens_are_limited_as_for_the_api_and_a_right_one_is_accepted() {
    let (scene, http) = (Scene::open().await, client());
    for _ in 0..20 {
        assert_eq!(sign_in(&scene, &http, "wrong").await.status(), 401);
    }
    let answer = sign_in(&scene, &http, "wrong").await;
    assert_eq!(answer.status(), 429);
    assert!(!header(&answer, "retry-after").is_empty());
    cookie(&scene, &http).await;
    // Another site cannot sign somebody in.
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let request = http.post(scene.url("/sign-in")).header(name, value);
        let answer = request.body(format!("token={}", scene.admin)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "set-cookie")), (403, ""), "{name}");
    }
}

#[tokio::test]
async fn without_a_session_there_is_only_the_page_where_one_signs_in() {
    let (scene, http) = (Scene::open().await, client());
    for cookie in ["", "cotter=0123456789abcdef0123456789abcdef", "cotter=", "__Host-cotter=x"] {
        let answer = http.get(scene.url("/fleets?x=1")).header("cookie", cookie).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "location")),
            (303, "/sign-in?to=%2Ffleets%3Fx%3D1")
        );
        assert_eq!(http.get(scene.url("/live")).header("cookie", cookie).send().await.unwrap().status(), 401);
    }
    // From a link elsewhere the browser sends no cookie. The page asks for itself once more, from here.
    let answer = http.get(scene.url("/fleets")).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(text.contains("http-equiv=\"refresh\"") && !text.contains("Fleets"), "{text}");
    // A token is no cookie, and a cookie is no token.
    let session = cookie(&scene, &http).await;
    let value = session.trim_start_matches("cotter=");
    assert_eq!(http.get(scene.url("/api/v1/fleets")).bearer_auth(value).send().await.unwrap().status(), 401);
    let page = http.get(scene.url("/fleets")).bearer_auth(&scene.admin).send().await.unwrap();
    assert_eq!(page.status(), 303);
    let page = http.get(scene.url("/fleets")).header("cookie", &session).send().await.unwrap();
    assert_eq!(page.status(), 200);
}

#[tokio::test]
async fn streams_of_events_are_bounded_and_end_with_the_server() {
    let (mut scene, http) = (Scene::open().await, client());
    let session = cookie(&scene, &http).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = http.get(scene.url("/live")).header("cookie", &session).send().await.unwrap();
        assert_eq!((stream.status().as_u16(), header(&stream, "content-type")), (200, "text/event-stream"));
        let first = stream.chunk().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&first).contains("event: hello"));
        streams.push(stream);
    }
    // One more of the same user has no place, and is sent how often to reload.
    let one_more = http.get(scene.url("/live")).header("cookie", &session).send().await.unwrap();
    assert_eq!((one_more.status().as_u16(), header(&one_more, "content-type")), (200, "text/event-stream"));
    assert_eq!(one_more.text().await.unwrap(), "event: full\ndata: 20\n\n");
    // Another user gets the place of the one who has most, whose oldest stream ends and says why.
    let token = scene.user("olga", "read-only").await;
    let olga = cookie_of(&scene, &http, &token).await;
    let mut of_olga = http.get(scene.url("/live")).header("cookie", &olga).send().await.unwrap();
    let first = of_olga.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("event: hello"));
    let rest = streams.remove(0).text().await.unwrap();
    assert!(rest.ends_with("event: full\ndata: 20\n\n"), "{rest}");
    let again = http.get(scene.url("/live")).header("cookie", &session).send().await.unwrap();
    assert_eq!(again.text().await.unwrap(), "event: full\ndata: 20\n\n", "it gets none of the others");
    // Those who act have their places all the same, and each stream is told.
    let fleet = scene.fleet("greenhouse").await;
    let mut told = String::new();
    while !told.contains("event: changed\ndata: {\"fleet\":null,\"position\":") {
        told += &String::from_utf8_lossy(&streams[0].chunk().await.unwrap().unwrap());
    }
    assert!(fleet > 0);
    scene.server.stop();
    let mut rest = streams.remove(0);
    while let Ok(Some(_)) = rest.chunk().await {}
}

/// The value of the first hidden field with this name in a page.
fn hidden(page: &str, name: &str) -> String {
    let field = page.split(&format!("name=\"{name}\" value=\"")).nth(1).expect(name);
    field.split('"').next().unwrap().replace("&quot;", "\"")
}

#[tokio::test]
async fn a_form_that_the_script_sends_again_is_done_once() {
    let (mut scene, http) = (Scene::open().await, client());
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let cookie = cookie(&scene, &http).await;
    let policy = scene.url(&format!("/fleets/{fleet}/policy"));
    let preview =
        http.get(format!("{policy}?release={GOOD}")).header("cookie", &cookie).send().await.unwrap();
    let preview = preview.text().await.unwrap();
    let fields = ["csrf", "etag"].map(|name| (name, hidden(&preview, name)));
    let form = [("release", GOOD.to_owned())].into_iter().chain(fields);
    let form = reqwest::Url::parse_with_params("http://form", form).unwrap().query().unwrap().to_owned();
    let mut answers = Vec::new();
    for key in ["0123456789abcdef", "0123456789abcdef", "fedcba9876543210"] {
        let request = http.post(&policy).header("origin", &scene.server.url).header("cookie", &cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        answers
            .push(request.header("idempotency-key", key).body(form.clone()).send().await.unwrap().status());
    }
    // Another key is another act, of somebody who has not seen the first one.
    assert_eq!(answers, [StatusCode::SEE_OTHER, StatusCode::SEE_OTHER, StatusCode::PRECONDITION_FAILED]);
    let done = scene.get("/audit?limit=100").await;
    let pins = done.as_array().unwrap().iter().filter(|record| {
        record["request"].as_str().is_some_and(|request| request.ends_with("/policy"))
            && record["result"] == "done"
    });
    assert_eq!(pins.count(), 1, "{done}");
}

#[tokio::test]
async fn a_rollout_whose_form_is_sent_again_is_started_once() {
    let (mut scene, http) = (Scene::open().await, client());
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    for number in 1..=2 {
        scene.device(fleet, number, &format!("board-{number}"), json!({})).await;
    }
    let cookie = cookie(&scene, &http).await;
    let start = scene.url(&format!("/fleets/{fleet}/rollouts/start"));
    let given = [("release", DRAFT), ("waves", "1,100%"), ("supersede", "1")];
    let plan = reqwest::Url::parse_with_params(&start, given.iter().chain(&[("plan", "1")])).unwrap();
    let plan = http.get(plan).header("cookie", &cookie).send().await.unwrap().text().await.unwrap();
    let fields = ["csrf", "etag", "replaces", "defined"].map(|name| (name, hidden(&plan, name)));
    let form = given.map(|(name, value)| (name, value.to_owned())).into_iter().chain(fields);
    let form = reqwest::Url::parse_with_params("http://form", form).unwrap().query().unwrap().to_owned();
    let send = async |form: String| {
        let request = http.post(&start).header("origin", &scene.server.url).header("cookie", &cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.header("idempotency-key", "0123456789abcdef").body(form).send().await.unwrap().status()
    };
    assert_eq!([send(form.clone()).await, send(form.clone()).await], [StatusCode::SEE_OTHER; 2]);
    let rollouts = scene.get(&format!("/fleets/{fleet}/rollouts")).await;
    assert_eq!(rollouts.as_array().unwrap().len(), 1, "{rollouts}");
    // Another form for the same rollout, whose user has not sent it before, is no repetition of it.
    let again = http.post(&start).header("origin", &scene.server.url).header("cookie", &cookie);
    let again = again.header("content-type", "application/x-www-form-urlencoded");
    let again =
        again.header("idempotency-key", "another-form-of-it").body(form.clone()).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::PRECONDITION_FAILED);
    // A rollout of the same release with other waves, of another user, is no repetition of it.
    let other = json!({ "release": DRAFT, "definition": { "waves": ["2", "100%"] }, "supersede": true });
    scene.did(Method::POST, &format!("/fleets/{fleet}/rollouts"), other).await;
    assert_eq!(send(form).await, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_token_is_shown_once_also_if_its_form_is_sent_again_without_a_script() {
    let (scene, http) = (Scene::open().await, client());
    scene.user("olga", "read-only").await;
    let cookie = cookie(&scene, &http).await;
    let page = scene.url("/settings/access");
    let asked = http.get(format!("{page}?do=create-token&user=olga")).header("cookie", &cookie).send().await;
    let asked = asked.unwrap().text().await.unwrap();
    let fields = ["csrf", "key", "do"].map(|name| (name, hidden(&asked, name)));
    let given = [("user", "olga"), ("role", "operator"), ("scope", "all"), ("name", "second")];
    let form = given.map(|(name, value)| (name, value.to_owned())).into_iter().chain(fields);
    let form = reqwest::Url::parse_with_params("http://form", form).unwrap().query().unwrap().to_owned();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = http.post(&page).header("origin", &scene.server.url).header("cookie", &cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form.clone()).send().await.unwrap();
        assert_eq!(header(&answer, "cache-control"), "no-store");
        answers.push((answer.status().as_u16(), answer.text().await.unwrap()));
    }
    let shown = |page: &str| page.contains("data-secret");
    assert_eq!((answers[0].0, shown(&answers[0].1)), (201, true));
    assert_eq!((answers[1].0, shown(&answers[1].1)), (409, false));
    assert!(answers[1].1.contains("shown_once"), "{}", answers[1].1);
    assert_eq!(scene.get("/tokens").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn forms_that_never_arrive_take_few_places() {
    let (scene, http) = (Scene::open().await, client());
    let address = scene.server.url.strip_prefix("http://").unwrap().to_owned();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /sign-in HTTP/1.1\r\nhost: {address}\r\nsec-fetch-site: same-origin\r\ncontent-length: 100\r\n\r\ntoken="
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let mut answer = sign_in(&scene, &http, &scene.admin).await.status();
    for _ in 0..50 {
        if answer == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        // The server has not read all heads yet.
        answer = sign_in(&scene, &http, &scene.admin).await.status();
    }
    assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..300 {
        if answer == StatusCode::SEE_OTHER {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answer = sign_in(&scene, &http, &scene.admin).await.status();
    }
    panic!("the forms that never arrive hold their places: {answer}");
}
