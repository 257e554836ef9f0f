//! How fast the dashboard is with a fleet of 10,000 devices: `make bench-dashboard`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::driver::Browser;
use crate::http::{client, cookie_of};
use crate::scene::Scene;

const DEVICES: u32 = 10_000;

/// How often each figure is measured. The table has the median and the greatest one.
const TIMES: usize = 30;

/// The budgets.
const PAINT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_millis(100);
const WEIGHT: u64 = 100 << 10;

/// What one figure was in all rounds, in its unit.
struct Figure {
    what: String,
    measured: Vec<f64>,
    budget: f64,
    unit: &'static str,
}

impl Figure {
    fn new(what: &str, mut measured: Vec<f64>, budget: f64, unit: &'static str) -> Self {
        measured.sort_by(f64::total_cmp);
        Self { what: what.to_owned(), measured, budget, unit }
    }

    fn most(&self) -> f64 {
        self.measured.last().copied().unwrap()
    }

    fn row(&self) -> String {
        let Self { what, measured, budget, unit } = self;
        let is_kept = if self.most() <= *budget { "yes" } else { "NO" };
        let median = measured[measured.len() / 2];
        format!("| {what}, {unit} | {median:.1} | {:.1} | {budget:.0} | {is_kept} |", self.most())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The fleet's page and its selections, by what is measured.
fn selections(fleet: u64) -> Vec<(&'static str, String)> {
    let page = format!("/fleets/{fleet}");
    vec![
        ("the fleet's page answered", page.clone()),
        ("its last devices by name answered", format!("{page}?sort=-name")),
        ("sorted by state answered", format!("{page}?sort=state")),
        ("a page in the middle answered", String::new()),
        ("filter by tag answered", format!("{page}?filter=ring%3Dcanary")),
        ("filter by tag and name answered", format!("{page}?filter=ring%3Dstable&name=board-09")),
        ("filter by state answered", format!("{page}?state=silent,offline")),
    ]
}

/// The address of the next page, as the page links to it.
fn next_of(page: &str) -> String {
    let link = page.split("<a ").find(|link| link.contains("rel=\"next\"")).expect("a next page");
    let href = link.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    href.replace("&amp;", "&")
}

async fn answers(scene: &Scene, fleet: u64) -> Vec<Figure> {
    let http = client();
    let cookie = cookie_of(scene, &http, &scene.admin).await;
    let get = async |path: &str| {
        let begun = Instant::now();
        let answer = http.get(scene.url(path)).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.unwrap();
        (ms(begun.elapsed()), text)
    };
    let mut middle = format!("/fleets/{fleet}");
    for _ in 0..20 {
        middle = next_of(&get(&middle).await.1);
    }
    let mut figures = Vec::new();
    for (what, path) in selections(fleet) {
        let path = if path.is_empty() { &middle } else { &path };
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(get(path).await.0);
        }
        figures.push(Figure::new(what, times, ms(ANSWER), "ms"));
    }
    figures
}

/// Loads the page without a cache, and returns its first paint in ms and its weight in bytes.
async fn load(browser: &Browser, url: &str) -> (f64, f64) {
    browser.devtools("Network.clearBrowserCache", json!({})).await;
    browser.open("about:blank").await;
    browser.open(url).await;
    browser.until_text("1–50 of 10,000").await;
    let paint =
        "performance.getEntriesByName('first-contentful-paint').map((one) => one.startTime)[0] || null";
    browser.until(&format!("({paint}) !== null")).await;
    let weight = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].reduce((sum, one) => sum + one.encodedBodySize, 0)";
    let number = |value: Value| value.as_f64().unwrap();
    (number(browser.eval(paint).await), number(browser.eval(weight).await))
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "its table is its result")]
async fn a_fleet_of_ten_thousand_devices() {
    // It measures, so it runs alone.
    if std::env::var_os("COTTER_BENCH_DASHBOARD").is_none() {
        return;
    }
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    scene.import("greenhouse", DEVICES).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let url = scene.url(&format!("/fleets/{fleet}"));
    let (mut paints, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (paint, weight) = load(&browser, &url).await;
        paints.push(paint);
        weights.push(weight / 1024.0);
    }
    let budget = f64::from(u32::try_from(WEIGHT >> 10).unwrap());
    let mut figures = vec![
        Figure::new("first paint of the fleet's page", paints, ms(PAINT), "ms"),
        Figure::new("weight of that page with style and script", weights, budget, "KiB"),
    ];
    figures.extend(answers(&scene, fleet).await);
    println!(
        "| {DEVICES} devices, {TIMES} times each | median | most | budget | within it |\n| --- | --- | --- | --- | --- |"
    );
    figures.iter().for_each(|figure| println!("{}", figure.row()));
    let over: Vec<_> = figures.iter().filter(|figure| figure.most() > figure.budget).collect();
    assert!(over.is_empty(), "{} figures are over their budgets", over.len());
}
