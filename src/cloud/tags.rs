//! The device's tags in its cloud (docs/dev/protocol.md, "Tags").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::error::CloudError;
use crate::http::{Method, StatusCode};
use crate::model::{DeviceTag, DeviceUuid, LONGEST_SET_KEY, LONGEST_SET_VALUE, MOST_TAGS};

/// Most bytes of the answer to a request for the tags: as many tags as services may set, each character of them written as
/// an escape of 6 bytes, with the names of the fields.
const LONGEST_TAGS: usize = MOST_TAGS * (6 * (LONGEST_SET_KEY + LONGEST_SET_VALUE) + 100);

/// A row of the cloud.
#[derive(Deserialize)]
struct Row {
    id: u64,
    tag_key: String,
    value: String,
}

#[derive(Deserialize)]
struct Rows {
    d: Vec<Row>,
}

impl Client {
    /// Returns the device's tags. `id` is its number in the cloud; without it the cloud is asked for that first.
    ///
    /// # Errors
    ///
    /// As [`CloudError`] says. A cloud that keeps no tags for devices to read answers with status 404.
    pub async fn tags(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        id: Option<u64>,
    ) -> Result<Vec<DeviceTag>, CloudError> {
        let unknown = || CloudError::Unknown { endpoint: self.endpoint().to_owned() };
        let id = match id {
            Some(id) => id,
            None => self.find(uuid, device_key).await?.ok_or_else(unknown)?,
        };
        let call = "request for the tags";
        let path = format!("v7/device_tag?$select=id,tag_key,value&$filter=device%20eq%20{id}");
        let answer = self.sent(call, self.request(Method::GET, &path).bearer(device_key)).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(call, answer).await);
        }
        let status = answer.status();
        let body = self.body(call, answer, LONGEST_TAGS).await?;
        let Rows { d } = serde_json::from_slice(&body)
            .map_err(|error| self.invalid(call, status, format!("its answer cannot be parsed: {error}")))?;
        Ok(d.into_iter().map(|Row { id, tag_key, value }| DeviceTag { id, key: tag_key, value }).collect())
    }

    /// Creates or changes tags of the device: `PATCH /device/v3/tags`. Others stay as they are.
    ///
    /// # Errors
    ///
    /// As [`CloudError`] says.
    pub async fn set_tags(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), CloudError> {
        let call = "change of tags";
        let body = json!({ uuid.as_str(): tags }).to_string().into_bytes();
        let request = self.request(Method::PATCH, "device/v3/tags").bearer(device_key).json(body);
        let answer = self.sent(call, request).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.refused(call, answer).await) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::http::Http;
    use crate::http::sample::{Say, Server, answer, endless_head};

    async fn read(server: &Server) -> Result<Vec<DeviceTag>, CloudError> {
        let client = Client::new(Http::new().unwrap(), &server.url(""), Duration::from_secs(20));
        client.tags(&DeviceUuid::parse("0".repeat(32)).unwrap(), "key", Some(7)).await
    }

    #[tokio::test]
    async fn all_tags_that_services_may_set_are_read_and_no_endless_answer() {
        let tag = |n: usize| {
            let (key, value) = (format!("{n:0255}"), "\u{1}".repeat(LONGEST_SET_VALUE));
            json!({ "id": n, "tag_key": key, "value": value })
        };
        let rows: Vec<Value> = (0..MOST_TAGS).map(tag).collect();
        let body = json!({ "d": rows }).to_string();
        assert!(body.len() > 2 << 20);
        let full = Server::start(move |_| answer("200 OK", &[], body.as_bytes()));
        assert_eq!(read(&full).await.unwrap().len(), MOST_TAGS);
        let endless = Server::start(|_| Say::Endless(endless_head("200 OK", &[]), vec![b' '; 0x4000]));
        let error = read(&endless).await.unwrap_err().to_string();
        assert!(error.contains("is not read"), "{error}");
    }
}
