//! One connection to a database, for a thread that may block. After an error the session must be dropped: what the database
//! did with the statement is not known.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage};

use super::address::Address;
use super::tls::Tls;
use crate::model::with_causes;

/// A connection. It makes progress only while a function of it runs.
pub struct Session {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    client: Client,
    notified: Arc<Notify>,
    /// The payload of notifications that are ignored.
    own: Arc<OnceLock<String>>,
}

/// Why the database was not used. The message is for a person.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// Nothing was sent.
    #[error("{0}")]
    NotConnected(String),
    /// There is no TLS as the address wants it.
    #[error("{0}")]
    NotTrusted(String),
    #[error("it gave no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The connection has ended. What was sent may have been done or not.
    #[error("{0}")]
    Lost(String),
    /// The database answered with an error.
    #[error("{message}")]
    Refused { code: String, message: String },
}

/// A value in a statement.
#[derive(Debug)]
pub enum Value<'a> {
    Number(i64),
    Numbers(Vec<i64>),
    Text(&'a str),
    Texts(Vec<&'a str>),
}

impl Value<'_> {
    fn of(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
            Self::Text(text) => (text, Type::TEXT),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
        }
    }
}

impl Session {
    /// Connects. Each of several hosts has the same part of the time to accept the connection, so that one that is down leaves
    /// time for the others.
    ///
    /// # Errors
    ///
    /// [`PgError`]; nothing was changed.
    pub fn open(address: &Address, deadline: Duration) -> Result<Self, PgError> {
        let failed = |error: io::Error| PgError::NotConnected(error.to_string());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let tls = Tls::new(&address.trust).map_err(|error| PgError::NotTrusted(error.to_string()))?;
        let mut config = address.config.clone();
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX);
        config.connect_timeout(deadline / hosts.max(1));
        let opening = async { timeout(deadline, config.connect(tls)).await };
        let opened = runtime.block_on(opening).map_err(|_| PgError::Late(deadline))?;
        let (client, mut connection) = opened.map_err(|error| not_connected(&error))?;
        let notified = Arc::new(Notify::new());
        let notify = Arc::clone(&notified);
        let own = Arc::new(OnceLock::<String>::new());
        let ignored = Arc::clone(&own);
        runtime.spawn(async move {
            // It ends with the client, or with the connection; then all that waits for an answer gets an error.
            while let Some(Ok(message)) = future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(news) = message
                    && ignored.get().is_none_or(|own| own != news.payload())
                {
                    notify.notify_one();
                }
            }
            notify.notify_one();
        });
        Ok(Self { runtime: Some(runtime), client, notified, own })
    }

    /// Runs statements without values, and returns the texts of their rows.
    ///
    /// # Errors
    ///
    /// [`PgError`].
    pub fn simple(&mut self, sql: &str, deadline: Duration) -> Result<Vec<Vec<String>>, PgError> {
        let running = self.client.simple_query(sql);
        let messages = block(self.runtime.as_ref(), running, deadline)?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let texts = (0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned());
                Some(texts.collect())
            }
            SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs a statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// [`PgError`].
    pub fn rows(&mut self, sql: &str, values: &[Value<'_>], deadline: Duration) -> Result<Vec<Row>, PgError> {
        let values: Vec<_> = values.iter().map(Value::of).collect();
        let running = self.client.query_typed(sql, &values);
        block(self.runtime.as_ref(), running, deadline)
    }

    /// Runs a statement, and passes its rows on one after the other, so that not all of them are in memory at once. `each`
    /// of them must arrive in time.
    ///
    /// # Errors
    ///
    /// [`PgError`].
    pub fn each_row(&mut self, sql: &str, mut take: impl FnMut(&Row), each: Duration) -> Result<(), PgError> {
        let none: [(&str, Type); 0] = [];
        let rows = block(self.runtime.as_ref(), self.client.query_typed_raw(sql, none), each)?;
        let mut rows = pin!(rows);
        loop {
            let next = async { rows.next().await.transpose() };
            match block(self.runtime.as_ref(), next, each)? {
                Some(row) => take(&row),
                None => return Ok(()),
            }
        }
    }

    /// Listens to notifications of a channel, except those whose payload is `own`. At most once for a connection.
    ///
    /// # Errors
    ///
    /// [`PgError`].
    pub fn listen(&mut self, channel: &str, own: &str, deadline: Duration) -> Result<(), PgError> {
        self.own.get_or_init(|| own.to_owned());
        self.simple(&format!("LISTEN {channel}"), deadline).map(drop)
    }

    /// Waits for a notification. Returns whether one has come.
    ///
    /// # Errors
    ///
    /// [`PgError::Lost`].
    pub fn wait(&mut self, at_most: Duration) -> Result<bool, PgError> {
        let Some(runtime) = &self.runtime else { return Ok(false) };
        let came = runtime.block_on(async { timeout(at_most, self.notified.notified()).await.is_ok() });
        if self.client.is_closed() {
            return Err(PgError::Lost("the connection was closed".to_owned()));
        }
        Ok(came)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait for its end on a thread of another one.
            runtime.shutdown_background();
        }
    }
}

fn block<T>(
    runtime: Option<&Runtime>,
    running: impl Future<Output = Result<T, tokio_postgres::Error>>,
    deadline: Duration,
) -> Result<T, PgError> {
    let Some(runtime) = runtime else { return Err(PgError::Lost("it is closed".to_owned())) };
    let answer = runtime.block_on(async { timeout(deadline, running).await });
    answer.map_err(|_| PgError::Late(deadline))?.map_err(|error| lost(&error))
}

fn lost(error: &tokio_postgres::Error) -> PgError {
    refused(error).unwrap_or_else(|| PgError::Lost(with_causes(error)))
}

fn not_connected(error: &tokio_postgres::Error) -> PgError {
    refused(error).unwrap_or_else(|| match with_causes(error) {
        words if words.contains("TLS") && !was_cut(error) => PgError::NotTrusted(words),
        words => PgError::NotConnected(words),
    })
}

fn refused(error: &tokio_postgres::Error) -> Option<PgError> {
    let error = error.as_db_error()?;
    Some(PgError::Refused { code: error.code().code().to_owned(), message: error.message().to_owned() })
}

/// Returns whether the connection ended, e.g. because the database stops, and not because of its certificate.
fn was_cut(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source()).any(|error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn open(answer: &'static [u8]) -> PgError {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.read_exact(&mut [0; 8]).unwrap();
            connection.write_all(answer).unwrap();
            // The beginning of the handshake, without which the end of the connection would be a reset.
            let _read = connection.read(&mut [0; 4096]).unwrap();
        });
        let url = format!("postgres://a@127.0.0.1:{port}/f?sslmode=require");
        let opened = Session::open(&Address::parse(&url).unwrap(), Duration::from_secs(20));
        database.join().unwrap();
        opened.err().unwrap()
    }

    #[test]
    fn a_connection_that_ends_in_the_handshake_is_no_wrong_setting() {
        let cut = open(b"S");
        assert!(matches!(cut, PgError::NotConnected(_)), "{cut:?}");
        let alert = open(b"S\x15\x03\x03\x00\x02\x02\x28");
        assert!(matches!(alert, PgError::NotTrusted(_)), "{alert:?}");
        let without_tls = open(b"N");
        assert!(matches!(without_tls, PgError::NotTrusted(_)), "{without_tls:?}");
    }
}
