use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

/// A server of rows with the ids `1..=last`. As the real API does, it gives at most as many as are asked for, also if a request
/// asks for more. Returns a client of it, and the queries that it has received.
fn server(last: u64, repeats: bool) -> (Api, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let queries: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&queries);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let query = head.split(' ').nth(1).unwrap_or_default().replace("%20", " ");
            let number = |name: &str| {
                let digits = query.split_once(name)?.1.split(|c: char| !c.is_ascii_digit()).next()?;
                digits.parse::<u64>().ok()
            };
            let after = number("id gt ").filter(|_| !repeats).unwrap_or(0);
            let top = number("$top=").unwrap();
            let rows: Vec<Value> =
                (after + 1..=last.min(after + top)).map(|id| json!({ "id": id })).collect();
            kept.lock().unwrap().push(query);
            let body = json!({ "d": rows }).to_string();
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _gone = stream.write_all((answer + &body).as_bytes());
        }
    });
    let api = Api::new(Http::new().unwrap(), &url, "token".to_owned(), false, true).unwrap();
    (api, queries)
}

#[tokio::test]
async fn more_devices_than_fit_on_a_page_are_read_each_once() {
    for (last, pages) in [(0, 1), (999, 1), (1000, 2), (1001, 2), (2500, 3)] {
        let (api, queries) = server(last, false);
        let rows = api.rows("device", "uuid", "belongs_to__application eq 7").await.unwrap();
        let ids: Vec<u64> = rows.iter().map(Row::id).collect();
        assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "{last}");
        let queries = queries.lock().unwrap().clone();
        assert_eq!(queries.len(), pages, "{queries:?}");
        let filters = queries.iter().enumerate().map(|(page, query)| {
            let after = if page == 0 { String::new() } else { format!(" and id gt {}", page * 1000) };
            query.contains(&format!("$filter=belongs_to__application eq 7{after}&$orderby=id asc&"))
        });
        assert!(filters.into_iter().all(|is_good| is_good), "{queries:?}");
    }
}

/// Such a server would be asked for ever.
#[tokio::test]
async fn a_server_that_gives_the_same_page_again_is_asked_no_more() {
    let (api, queries) = server(2500, true);
    let rows = api.rows("device", "uuid", "").await.unwrap();
    assert_eq!((rows.len(), queries.lock().unwrap().len()), (1000, 2));
}
