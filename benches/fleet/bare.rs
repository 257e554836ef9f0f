//! What axum itself can do: a server that answers 304 to everything, with the header of the real one.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::ETAG;

use crate::server::{OF_SERVER, on_processor, this_program};

/// The word with which this program is that server.
pub const WORD: &str = "bare-axum";

pub struct Bare {
    child: Child,
    pub address: SocketAddr,
}

impl Bare {
    pub fn start() -> Self {
        let mut command = on_processor(OF_SERVER, &this_program());
        let mut child = command.arg(WORD).stdout(Stdio::piped()).spawn().expect("taskset runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let same = async || (StatusCode::NOT_MODIFIED, [(ETAG, "W/\"1a2b-0123456789abcdef\"")]);
        let routes = Router::new().route("/device/v3/{uuid}/state", axum::routing::get(same));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        serve_each(listener, routes).await;
    });
}

/// As `axum::serve`, which is not among the features that the server needs.
async fn serve_each(listener: tokio::net::TcpListener, routes: Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = hyper_util::service::TowerToHyperService::new(routes.clone());
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}
