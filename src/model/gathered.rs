//! Maps and sets from what is at hand.

/// Collects by putting in one after the other. `collect` sorts first, for which it makes 3 KB of code for every type
/// of map and set; a device has few of anything.
pub fn gathered<C: Default + Extend<T>, T>(all: impl IntoIterator<Item = T>) -> C {
    let mut gathered = C::default();
    gathered.extend(all);
    gathered
}
