//! The contract of a store: one list of checks that runs on each.

#[path = "../../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests of the whole server use more of it")]
mod postgres;

#[path = "../../tests/support/wall.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests of the whole server use more of it")]
mod wall;

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::fleet::access::{By, Entry, Outcome};
use crate::fleet::policy::{Counters, Device, KeyHash, Reported, VariableHolder, World};
use crate::fleet::{clock, database, file_storage};
use crate::model::DeviceUuid;
use crate::postgres::{Address, Session};
use postgres::Postgres;
use wall::Wall;

/// Opens the store as a server does that starts. The one before is closed.
type Open<'a> = &'a dyn Fn() -> Opened;

fn uuid(number: u32) -> DeviceUuid {
    DeviceUuid::parse(format!("{number:032x}")).unwrap()
}

fn device(number: u32) -> Change {
    Change::PutDevice(Device {
        number: number.into(),
        uuid: uuid(number),
        name: format!("bo\u{e4}rd \"{number}\"\u{0}"),
        device_type: "generic-amd64".into(),
        fleet: 1,
        key: KeyHash(format!("{number:064x}")),
        pin: None,
        tags: [("ring".to_owned(), "canary".to_owned())].into(),
        created: clock::now(),
        provisioned_by: None,
        departure: None,
        pinned: None,
    })
}

fn reports(number: u32, running: u64) -> Change {
    Change::PutReports(uuid(number), Reported { running: Some(running), ..Reported::default() })
}

fn audit(number: u64) -> Change {
    audit_of(number, "pin a fleet".to_owned())
}

fn audit_of(number: u64, what: String) -> Change {
    Change::Audit(Box::new(Entry {
        number,
        at: clock::now(),
        by: By { user: None, token: "t".into(), id: "0".into() },
        from: None,
        what,
        request: "POST /x".into(),
        things: Vec::new(),
        count: 0,
        fleets: Vec::new(),
        details: None,
        why: None,
        outcome: Outcome::Done,
    }))
}

/// All records, in a form that can be compared.
fn text(world: &World) -> Vec<String> {
    let mut lines: Vec<_> = world.records().map(|change| format!("{change:?}")).collect();
    lines.push(format!("audited {}", world.audited()));
    lines.sort();
    lines
}

fn write(storage: &mut dyn Storage, changes: &[Change]) -> Option<u64> {
    storage.begin().unwrap();
    storage.commit(changes).unwrap()
}

fn what_is_written_is_there_after_a_restart(open: Open<'_>) {
    let mut opened = open();
    assert!(opened.records.is_empty());
    let counters = |device| Change::Counters(Counters { device, ..Counters::default() });
    let groups = [
        vec![counters(1), device(1), audit(1)],
        // Of several changes of one record in a group the last one counts.
        vec![counters(2), device(2), device(3), reports(2, 1), reports(2, 7), counters(3), audit(2)],
        vec![Change::DropDevice(uuid(3)), reports(1, 5), audit(3), audit(4)],
        vec![Change::DropAudit(1)],
    ];
    let mut world = World::default();
    for group in groups {
        write(&mut *opened.storage, &group);
        group.into_iter().for_each(|change| world.apply(change));
    }
    let many: Vec<_> = (10..6_000).map(device).chain((10..6_000).map(|number| reports(number, 3))).collect();
    write(&mut *opened.storage, &many);
    many.into_iter().for_each(|change| world.apply(change));
    drop(opened);
    let again = World::of(open().records);
    assert_eq!(text(&again), text(&world));
    assert_eq!(world.reported(&uuid(2)).running, Some(7));
}

fn a_group_that_ends_without_a_change_leaves_none(open: Open<'_>) {
    let mut opened = open();
    write(&mut *opened.storage, &[device(1)]);
    for _ in 0..3 {
        assert_eq!(opened.storage.begin().unwrap(), News::None);
        opened.storage.end();
        assert_eq!(opened.storage.refresh().unwrap(), News::None, "its own changes are no news");
    }
    let position = write(&mut *opened.storage, &[device(2)]);
    drop(opened);
    let again = open();
    assert_eq!(again.position, position);
    assert_eq!(World::of(again.records).devices().count(), 2);
}

fn the_trail_is_read_from_the_newest(open: Open<'_>) {
    let mut opened = open();
    let page = |opened: &Opened, below, most| {
        let page = opened.trail.page(&Which::default(), &Scope::All, below, most).unwrap();
        (page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), page.below)
    };
    assert_eq!(page(&opened, u64::MAX, 10), (vec![], None));
    assert_eq!(opened.trail.old(10, clock::now(), 10).unwrap(), [0; 0]);
    write(&mut *opened.storage, &(1..=2_500).map(audit).collect::<Vec<_>>());
    assert_eq!(page(&opened, u64::MAX, 3), (vec![2_500, 2_499, 2_498], Some(2_498)));
    assert_eq!(page(&opened, 3, 10), (vec![2, 1], None));
    let all = page(&opened, u64::MAX, 2_500);
    assert_eq!(all, ((1..=2_500).rev().collect(), None), "no page leaves one out");
    let before_all = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(opened.trail.old(2_498, before_all, 10).unwrap(), [1, 2]);
    assert_eq!(opened.trail.old(5_000, jiff::Timestamp::MAX, 3).unwrap(), [1, 2, 3]);
    write(&mut *opened.storage, &[Change::DropAudit(1), Change::DropAudit(2_500)]);
    assert_eq!(page(&opened, 3, 10), (vec![2], None));
    assert_eq!(page(&opened, u64::MAX, 1).0, [2_499]);
}

fn a_page_of_the_trail_has_a_bound_in_bytes(open: Open<'_>) {
    let mut opened = open();
    let long = |number| audit_of(number, "x".repeat(100_000));
    write(&mut *opened.storage, &(1..=30).map(long).collect::<Vec<_>>());
    let (mut numbers, mut sizes, mut below) = (Vec::new(), Vec::new(), Some(u64::MAX));
    while let Some(next) = below {
        let page = opened.trail.page(&Which::default(), &Scope::All, next, 1_000).unwrap();
        sizes.push(page.entries.len());
        numbers.extend(page.entries.iter().map(|entry| entry.number));
        below = page.below;
    }
    assert_eq!(sizes, [11, 11, 8]);
    assert_eq!(numbers, (1..=30).rev().collect::<Vec<_>>());
}

fn records_that_are_removed_are_gone(open: Open<'_>) {
    let mut opened = open();
    let holder = VariableHolder::Device(uuid(1));
    let variables: crate::fleet::policy::Variables = serde_json::from_value(serde_json::json!({
        "all": { "RATE": { "value": "5", "is_secret": false, "changed": "2026-01-01T00:00:00Z" } }
    }))
    .unwrap_or_default();
    write(&mut *opened.storage, &[device(1), reports(1, 1), Change::PutVariables(holder, variables)]);
    write(&mut *opened.storage, &[Change::DropDevice(uuid(1)), device(2)]);
    drop(opened);
    let world = World::of(open().records);
    assert_eq!(world.devices().map(|device| device.number).collect::<Vec<_>>(), [2]);
    assert_eq!(world.reported(&uuid(1)), &Reported::default());
    assert_eq!(world.variable_holders(None).count(), 0);
}

/// Every check on a store of its own. `fresh` makes one that is empty.
fn check_all(fresh: &mut dyn FnMut() -> Box<dyn Fn() -> Opened>) {
    for check in [
        what_is_written_is_there_after_a_restart,
        a_group_that_ends_without_a_change_leaves_none,
        the_trail_is_read_from_the_newest,
        a_page_of_the_trail_has_a_bound_in_bytes,
        records_that_are_removed_are_gone,
    ] {
        check(&*fresh());
    }
}

#[test]
fn the_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    check_all(&mut || {
        count += 1;
        let dir = dir.path().join(count.to_string());
        std::fs::create_dir(&dir).unwrap();
        Box::new(move || file_storage::open(&dir).unwrap())
    });
}

#[test]
fn postgresql_keeps_the_contract_and_servers_follow_each_other() {
    let Some(mut postgres) = Postgres::start() else { return };
    let mut count = 0;
    check_all(&mut || {
        count += 1;
        postgres.create(&format!("fleet{count}"));
        let address = Address::parse(&postgres.url(&format!("fleet{count}"))).unwrap();
        Box::new(move || database::open(&address, Path::new("/none")).unwrap())
    });
    servers_follow_each_other(&postgres);
    what_is_read_is_not_lost_with_the_connection(&postgres);
    what_cannot_be_used_is_said_in_one_line(&postgres);
    connections_have_the_tls_of_the_url(&mut postgres);
}

/// What a server has in memory.
struct Follower {
    opened: Opened,
    world: World,
}

impl Follower {
    fn new(address: &Address) -> Self {
        let mut opened = database::open(address, Path::new("/none")).unwrap();
        let world = World::of(std::mem::take(&mut opened.records));
        Self { opened, world }
    }

    fn take(&mut self, news: News) -> &'static str {
        match news {
            News::None => "none",
            News::Changes(changes, _) => {
                changes.into_iter().for_each(|change| self.world.apply(change));
                "changes"
            }
            News::All(records, _) => {
                self.world = World::of(records);
                "all"
            }
        }
    }

    fn refresh(&mut self) -> &'static str {
        let news = self.opened.storage.refresh().unwrap();
        self.take(news)
    }

    fn refresh_until_changes(&mut self) {
        for _ in 0..200 {
            if self.refresh() == "changes" {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("there were no changes for 10 s");
    }

    fn act(&mut self, changes: &[Change]) {
        let news = self.opened.storage.begin().unwrap();
        self.take(news);
        self.opened.storage.commit(changes).unwrap();
        changes.iter().for_each(|change| self.world.apply(change.clone()));
    }
}

fn servers_follow_each_other(postgres: &Postgres) {
    let address = Address::parse(&postgres.url("fleet")).unwrap();
    let (mut a, mut b) = (Follower::new(&address), Follower::new(&address));
    a.act(&[device(1), audit(1), reports(1, 1)]);
    assert_eq!((b.refresh(), b.refresh()), ("changes", "none"));
    b.act(&[device(2), audit(2)]);
    b.act(&[reports(1, 2)]);
    a.act(&[reports(2, 9), Change::DropDevice(uuid(1))]);
    assert_eq!(b.refresh(), "changes");
    assert_eq!(text(&a.world), text(&b.world));
    assert_eq!(text(&Follower::new(&address).world), text(&a.world));
    let logged = postgres.psql("fleet", "SELECT count(*) FROM cotter_log WHERE changes LIKE '%running%'");
    assert_eq!(logged, "0", "reports are not in the log");

    // A server that is too far behind reads all records again.
    for number in 0..300_u32 {
        a.act(&[device(100 + number), audit(u64::from(number) + 3)]);
    }
    postgres.psql("fleet", "DELETE FROM cotter_log WHERE seq < 250; UPDATE cotter_meta SET trimmed = 249");
    assert_eq!((b.refresh(), b.refresh()), ("all", "none"));
    assert_eq!(text(&a.world), text(&b.world));

    // So does one whose database was replaced by another copy of it.
    let other = "UPDATE cotter_meta SET head_group = 'other'; \
                 UPDATE cotter_log SET of_group = 'other' WHERE seq = (SELECT head FROM cotter_meta)";
    postgres.psql("fleet", other);
    assert_eq!((a.refresh(), a.refresh(), b.refresh()), ("all", "none", "all"));

    // A connection that the database has closed is opened again without an error.
    let closed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'cotter'";
    postgres.psql("fleet", closed);
    b.act(&[device(9)]);
    assert_eq!(a.refresh(), "changes");
    assert_eq!(text(&a.world), text(&b.world));
}

fn what_is_read_is_not_lost_with_the_connection(postgres: &Postgres) {
    let wall = Wall::start(postgres.port);
    let by_wall = Address::parse(&postgres.url_by(wall.port)).unwrap();
    let mut a = Follower::new(&Address::parse(&postgres.url("fleet")).unwrap());
    let mut b = Follower::new(&by_wall);

    a.act(&[device(1_000)]);
    wall.cut_before_rollback();
    assert_eq!((b.refresh(), wall.has_cut(), b.refresh()), ("changes", true, "none"));
    assert_eq!(text(&a.world), text(&b.world));

    // A group with reports alone has no row in the log: whether it was written is not asked, and it is news later.
    wall.cut_after_commit();
    assert_eq!(b.opened.storage.begin().unwrap(), News::None);
    let lost = b.opened.storage.commit(&[reports(1_000, 77)]).unwrap_err();
    assert!(wall.has_cut() && !lost.is_unknown() && lost.is_of_connection(), "{lost}");
    assert!(!lost.to_string().contains("rolled back"), "{lost}");
    // The database may still be at it when the connection ends.
    a.refresh_until_changes();
    b.refresh_until_changes();
    assert_eq!((b.world.reported(&uuid(1_000)).running, text(&a.world) == text(&b.world)), (Some(77), true));

    // A server is not woken by its own notifications.
    let mut listening = Session::open(&by_wall, Duration::from_secs(5)).unwrap();
    listening.listen("cotter_fleet", "own", Duration::from_secs(5)).unwrap();
    postgres.psql("fleet", "NOTIFY cotter_fleet, 'own'");
    assert!(!listening.wait(Duration::from_millis(300)).unwrap());
    b.act(&[device(1_001)]);
    assert!(listening.wait(Duration::from_secs(5)).unwrap());

    // When a device polled last is dropped with it.
    let seen = |number| format!("SELECT count(*) FROM cotter_seen WHERE uuid = '{}'", uuid(number));
    let mut sightings = database::SharedSightings::new(by_wall).unwrap();
    sightings
        .exchange(&[(uuid(1_000).to_string(), clock::now()), (uuid(9).to_string(), clock::now())])
        .unwrap();
    b.act(&[Change::DropDevice(uuid(1_000))]);
    assert_eq!(
        (postgres.psql("fleet", &seen(1_000)), postgres.psql("fleet", &seen(9))),
        ("0".into(), "1".into())
    );
}

fn what_cannot_be_used_is_said_in_one_line(postgres: &Postgres) {
    let error = |url: &str| match database::open(&Address::parse(url).unwrap(), Path::new("/none")) {
        Ok(_) => panic!("{url} can be used"),
        Err(error) => error.to_string(),
    };
    let (right, port) = (postgres.url("fleet"), postgres.port);
    let closed = "postgres://cotter@127.0.0.1:1/fleet?sslmode=disable".to_owned();
    let latin =
        "CREATE DATABASE latin OWNER cotter ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    postgres.psql("postgres", "CREATE DATABASE alien");
    postgres.psql("postgres", latin);
    postgres.create("newer");
    postgres.create("strange");
    let address = Address::parse(&postgres.url("newer")).unwrap();
    drop(database::open(&address, Path::new("/none")).unwrap());
    postgres.psql("newer", "UPDATE cotter_meta SET version = 2");
    postgres.psql("strange", "CREATE TABLE cotter_meta (a int)");
    for (url, expected) in [
        (closed, "does not answer"),
        (postgres.url("none"), "there is no such database as postgres://cotter@127.0.0.1"),
        (postgres.url("none"), "createdb --owner=cotter none"),
        (right.replace("hush-hush", "wrong"), "does not accept this user"),
        (postgres.url("alien"), "ALTER DATABASE alien OWNER TO cotter"),
        (postgres.url("latin"), "has the encoding LATIN1"),
        (postgres.url("newer"), "have version 2, and this version of cotter-fleet knows 1"),
        (postgres.url("strange"), "are not those of cotter-fleet"),
        (format!("{right}?sslmode=require"), "server does not support TLS); correct sslmode"),
    ] {
        let error = error(&url);
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains('\n') && !error.contains("hush"), "{error}");
    }
    assert!(error(&format!("postgres://cotter@127.0.0.1:{port}/fleet")).contains("password"));
    // A folder whose records are still to be brought into the database.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("records"), "x").unwrap();
    postgres.create("empty");
    let address = Address::parse(&postgres.url("empty")).unwrap();
    let opened = database::open(&address, dir.path()).err().unwrap().to_string();
    assert!(opened.contains("bring them there with `cotter-fleet migrate`"), "{opened}");
}

fn openssl(dir: &Path, line: &str) {
    let mut openssl = std::process::Command::new("openssl");
    let made = openssl.args(line.split_whitespace()).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{line}: {made:?}");
}

fn connections_have_the_tls_of_the_url(postgres: &mut Postgres) {
    let dir = tempfile::tempdir().unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    for name in ["ca", "other"] {
        let request = format!("req -x509 {key} -subj /CN={name} -keyout {name}.key -out {name}.pem");
        openssl(dir.path(), &request);
    }
    let signed = "-CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:localhost";
    openssl(
        dir.path(),
        &format!(
            "req -x509 {key} -subj /CN=db {signed} -addext basicConstraints=critical,CA:FALSE -keyout db.key -out db.pem"
        ),
    );
    postgres.use_tls(&dir.path().join("db.pem"), &dir.path().join("db.key"));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let by_name = postgres.url("fleet").replace("127.0.0.1", "localhost");
    let (ca, other) = (file("ca.pem"), file("other.pem"));
    for (url, query, expected) in [
        (postgres.url("fleet"), String::new(), Ok("t")),
        (postgres.url("fleet"), "sslmode=disable".to_owned(), Ok("f")),
        (postgres.url("fleet"), "sslmode=require".to_owned(), Ok("t")),
        (postgres.url("fleet"), format!("sslmode=verify-ca&sslrootcert={ca}"), Ok("t")),
        (
            postgres.url("fleet"),
            format!("sslmode=verify-ca&sslrootcert={other}"),
            Err("invalid peer certificate"),
        ),
        (postgres.url("fleet"), format!("sslmode=verify-full&sslrootcert={ca}"), Err("not valid for name")),
        (by_name.clone(), format!("sslmode=verify-full&sslrootcert={ca}"), Ok("t")),
        (
            by_name.clone(),
            format!("sslmode=verify-full&sslrootcert={other}"),
            Err("invalid peer certificate"),
        ),
        (by_name.clone(), "sslmode=verify-full".to_owned(), Err("invalid peer certificate")),
        (
            by_name.clone(),
            "sslmode=verify-full&sslrootcert=/none".to_owned(),
            Err("sslrootcert=/none cannot be used"),
        ),
        (by_name, format!("sslmode=verify-full&sslrootcert={}", file("db.key")), Err("cannot be used")),
    ] {
        let opened = database::open(&Address::parse(&format!("{url}?{query}")).unwrap(), Path::new("/none"));
        let has = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'cotter'";
        match (opened, expected) {
            (Ok(_opened), Ok(expected)) => assert_eq!(postgres.psql("fleet", has), expected, "{query}"),
            (Err(error), Err(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected) && error.contains("correct sslmode"), "{query}: {error}");
            }
            (Ok(_), Err(_)) => panic!("{query} is accepted"),
            (Err(error), Ok(_)) => panic!("{query}: {error}"),
        }
    }
}
