//! Values that are kept as JSON text. A parsed `Value` takes up to 30 times the memory of its text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value as its JSON text. It is parsed each time that it is read.
pub struct Compact<T> {
    text: Box<RawValue>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Default> Compact<T> {
    /// Keeps a value.
    #[must_use]
    pub fn of(value: &T) -> Self {
        // Neither fails: the values are maps of JSON.
        let text = serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { text, of: PhantomData }
    }

    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> T {
        serde_json::from_str(self.text.get()).unwrap_or_default()
    }
}

impl<T> Compact<T> {
    /// Returns the number of bytes of its text.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.get().len()
    }
}

impl<T> Clone for Compact<T> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), of: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + Default> Default for Compact<T> {
    fn default() -> Self {
        Self::of(&T::default())
    }
}

impl<T> PartialEq for Compact<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text.get() == other.text.get()
    }
}

impl<T> Eq for Compact<T> {}

impl<T> fmt::Debug for Compact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.get())
    }
}

impl<T> Serialize for Compact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Compact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str::<T>(text.get()).map_err(D::Error::custom)?;
        Ok(Self { text, of: PhantomData })
    }
}
