//! Connects to PostgreSQL and runs statements, each with a deadline. It does not know what the tables are for.
//!
//! Begin with [`Session`]. It blocks: the fleet server uses it on threads that serve no request.

mod address;
mod session;
mod tls;

pub use address::{Address, BadAddress};
pub use session::{PgError, Session, Value};
pub use tokio_postgres::Row;
