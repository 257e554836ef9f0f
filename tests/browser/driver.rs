//! A real Chromium, driven by WebDriver and by the DevTools commands that chromedriver passes on. Small on purpose: a client crate
//! would bring more than the tests are long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a page may take to become what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys, as WebDriver writes them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const SPACE: &str = " ";
pub(crate) const UP: &str = "\u{e013}";
pub(crate) const DOWN: &str = "\u{e015}";
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// A browser with a profile of its own. Ends with its value.
pub(crate) struct Browser {
    http: reqwest::Client,
    session: String,
    driver: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts one; `None` where there is no Chromium, with a line that says so.
    pub(crate) async fn start() -> Option<Self> {
        let missing = [("chromium", binary("chromium")), ("chromedriver", binary("chromedriver"))]
            .into_iter()
            .find(|(_, path)| path.is_none());
        if let Some((name, _)) = missing {
            let why = format!("{name} is not installed; scripts/prepare.sh does it where apt can");
            assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
            eprintln!("skipped: the dashboard in a browser: {why}");
            return None;
        }
        drop(rustls::crypto::ring::default_provider().install_default());
        let profile = tempfile::Builder::new().prefix("cotter-browser-").tempdir().unwrap();
        let log = profile.path().join("driver.log");
        let mut command = Command::new(binary("chromedriver").unwrap());
        // Chromium leaves folders behind where temporary files are.
        command.arg("--port=0").env("TMPDIR", profile.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let driver = command.stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
        let port = until("chromedriver listens", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let rest = said.split_once("successfully on port ")?.1;
            Some(rest.split_once('.')?.0.to_owned())
        })
        .await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut browser = Self { http, session: format!("http://127.0.0.1:{port}/session"), driver, profile };
        let options = json!({
            "binary": binary("chromium").unwrap(),
            "args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                "--window-size=1280,900", "--force-color-profile=srgb", "--lang=en-US", "--no-proxy-server",
                format!("--user-data-dir={}", browser.profile.path().join("profile").display()),
            ],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "unhandledPromptBehavior": "accept",
        } } });
        let created = browser.ask(Method::POST, "", wanted).await.unwrap();
        browser.session = format!("{}/{}", browser.session, created["sessionId"].as_str().unwrap());
        browser.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": "Europe/Berlin" })).await;
        Some(browser)
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.session));
        if method == Method::POST {
            request = request.json(&body);
        }
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{path}: {error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Runs a command of the DevTools.
    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.ask(Method::POST, "/goog/cdp/execute", body).await.unwrap()
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", json!({ "url": url })).await.unwrap();
    }

    pub(crate) async fn url(&self) -> String {
        self.ask(Method::GET, "/url", Value::Null).await.unwrap().as_str().unwrap().to_owned()
    }

    /// Evaluates an expression in the page, also where pages may run no script.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.devtools("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(crate) async fn text(&self) -> String {
        self.eval("document.body ? document.body.innerText : ''")
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        let begun = Instant::now();
        loop {
            let params = json!({ "expression": expression, "returnByValue": true });
            let body = json!({ "cmd": "Runtime.evaluate", "params": params });
            // In between two pages there is nothing to ask.
            let answer = self.ask(Method::POST, "/goog/cdp/execute", body).await;
            if answer.is_ok_and(|answer| answer["result"]["value"] == true) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                panic!("{expression} does not come true at {}:\n{}", self.url().await, self.text().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows a text.
    pub(crate) async fn until_text(&self, text: &str) {
        self.until(&format!("!!document.body && document.body.innerText.includes({})", json!(text))).await;
    }

    /// Waits until something is there.
    pub(crate) async fn until_there(&self, selector: &str) {
        self.until(&format!("!!document.querySelector({})", json!(selector))).await;
    }

    async fn find(&self, selector: &str) -> String {
        self.until_there(selector).await;
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.ask(Method::POST, "/element", body).await.unwrap();
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let begun = Instant::now();
        loop {
            let element = self.find(selector).await;
            let clicked = self.ask(Method::POST, &format!("/element/{element}/click"), json!({})).await;
            let Err(error) = clicked else { return };
            // A live page may have swapped the element in between.
            assert!(begun.elapsed() < PATIENCE, "{selector}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Clicks the first link or button that has this text.
    pub(crate) async fn click_text(&self, text: &str) {
        let mark = format!(
            "(() => {{ const inside = document.querySelector('dialog[open]') || document;
                const found = [...inside.querySelectorAll('a, button, summary')].find((one) => one.textContent.trim() === {text} && one.checkVisibility());
                document.querySelectorAll('[data-test]').forEach((one) => one.removeAttribute('data-test'));
                if (found) found.setAttribute('data-test', ''); return !!found; }})()",
            text = json!(text)
        );
        let begun = Instant::now();
        loop {
            self.until(&mark).await;
            // A live page may swap the element before it is clicked.
            let body = json!({ "using": "css selector", "value": "[data-test]" });
            if let Ok(found) = self.ask(Method::POST, "/element", body).await {
                let element = found[ELEMENT].as_str().unwrap().to_owned();
                let clicked = self.ask(Method::POST, &format!("/element/{element}/click"), json!({})).await;
                let Err(error) = clicked else { return };
                assert!(begun.elapsed() < PATIENCE, "{text}: {error}");
            }
        }
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.ask(Method::POST, &format!("/element/{element}/clear"), json!({})).await.unwrap();
        self.ask(Method::POST, &format!("/element/{element}/value"), json!({ "text": text })).await.unwrap();
    }

    /// Presses a key, wherever the focus is.
    pub(crate) async fn press(&self, key: &str) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let body = json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] });
        self.ask(Method::POST, "/actions", body).await.unwrap();
    }

    /// Presses Tab until an expression about `document.activeElement` is true.
    pub(crate) async fn tab_to(&self, expression: &str) {
        for _ in 0..80 {
            if self.eval(expression).await == true {
                return;
            }
            self.press(TAB).await;
        }
        panic!("{expression}: no Tab leads there at {}", self.url().await);
    }

    pub(crate) async fn width(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub(crate) async fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Whether pages may run scripts. The tests themselves still may.
    pub(crate) async fn scripts(&self, may_run: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !may_run })).await;
    }

    pub(crate) async fn screenshot(&self, file: &Path) {
        let shot = self.ask(Method::GET, "/screenshot", Value::Null).await.unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, decoded(shot.as_str().unwrap())).unwrap();
        // Small enough for the documents.
        let params = json!({ "format": "webp", "quality": 80 });
        let small = self.devtools("Page.captureScreenshot", params).await;
        fs::write(file.with_extension("webp"), decoded(small["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    /// Leaves no process behind, also after a panic. Chromium is no child that ends with its driver, so each process with this
    /// profile is ended by its id; its helpers end with it.
    fn drop(&mut self) {
        let _gone = self.driver.kill();
        let _ended = self.driver.wait();
        let profile = self.profile.path().display().to_string();
        for _ in 0..50 {
            let of_profile = with_words(&profile);
            if of_profile.is_empty() {
                return;
            }
            let ids = of_profile.iter().map(ToString::to_string);
            let _gone = Command::new("kill").arg("-KILL").args(ids).stderr(Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The processes whose command line has this text, by their ids.
fn with_words(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_text = |id: &u32| {
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(text)
    };
    ids.filter(has_text).collect()
}

/// Where a program is, if it is installed.
fn binary(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads base64.
fn decoded(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for value in text.chars().filter_map(|digit| digits.find(digit)) {
        bits = (bits << 6) | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 255).unwrap());
        }
    }
    bytes
}
