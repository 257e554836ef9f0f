//! A fleet server in the process of the test, on a free port, and an operator's desk at it.

use std::path::Path;

use cotter::fleet::{RawConfig, Server};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) struct Desk {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Desk {
    #[allow(dead_code, reason = "some tests need another number of connections")]
    pub(crate) async fn open(dir: &Path) -> Self {
        Self::open_for(dir, 1024).await
    }

    #[allow(dead_code, reason = "some tests need other settings")]
    /// With so many connections of devices.
    pub(crate) async fn open_for(dir: &Path, connections: usize) -> Self {
        Self::open_with(dir, RawConfig { connections: Some(connections), ..RawConfig::default() }).await
    }

    #[allow(dead_code, reason = "most tests use the defaults")]
    /// With further settings.
    pub(crate) async fn open_with(dir: &Path, settings: RawConfig) -> Self {
        let raw = RawConfig {
            listen: Some("127.0.0.1:0".into()),
            data_dir: Some(dir.to_owned()),
            poll_interval: Some("5s".into()),
            ..settings
        };
        let server = Server::open(raw.check().unwrap()).await.unwrap();
        let url = format!("http://{}", server.address());
        let token = std::fs::read_to_string(dir.join("operator.token")).unwrap().trim().to_owned();
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let stopping = stop.clone();
        tasks.spawn(async move { server.run(stopping).await });
        Self { url, token, http, stop, tasks }
    }

    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        drop(self.http);
        while self.tasks.join_next().await.is_some() {}
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends an operator's request. Returns the status and the JSON.
    pub(crate) async fn operate(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, &format!("/api/v1{path}")).bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// As [`Self::operate`], for a request that must succeed.
    pub(crate) async fn did(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.operate(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }
}
