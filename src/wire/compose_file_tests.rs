use serde_json::json;

use super::*;

/// Errors as text, one per line.
fn errors(text: &str) -> String {
    let lines: Vec<_> = parse(text).unwrap_err().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn images(names: &[&str]) -> BTreeMap<String, ImageRef> {
    names.iter().map(|name| ((*name).to_owned(), ImageRef::parse(name).unwrap())).collect()
}

const FULL: &str = r#"
version: "3.9"
name: mine
x-common: &common
  restart: unless-stopped
  environment: { A: 1 }
services:
  web:
    <<: *common
    image: r.example/web:1
    command: echo $$HOME
    ports:
      - 8080:80
      - 22:22
  db:
    image: postgres
networks:
  back:
volumes:
  data: {}
"#;

#[test]
fn a_file_with_everything() {
    let file = parse(FULL).unwrap();
    assert_eq!(
        serde_json::to_value(&file.services).unwrap(),
        json!({
            "db": {"image": "postgres"},
            "web": {
                "image": "r.example/web:1", "restart": "unless-stopped", "environment": {"A": 1},
                "command": "echo $HOME", "ports": ["8080:80", "22:22"],
            },
        })
    );
    assert_eq!(serde_json::to_value(&file.networks).unwrap(), json!({"back": null}));
    assert_eq!(serde_json::to_value(&file.volumes).unwrap(), json!({"data": {}}));
    let warnings = check(&file, &images(&["web", "db"])).unwrap();
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["name: not honoured: the fleet has its own name"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let variable = "is not filled in, because a release is the same on every device: write the value, or set a \
                    variable of the fleet or device; write $$ for a plain $";
    for (text, told) in [
        ("", "it is not a compose file: write services with their names below".to_owned()),
        ("services:\n", "line 1: services: there is no service: write at least one, with an image".into()),
        ("a: [", "line 2: it is not valid YAML: did not find expected node content at line 2 column 1, while parsing a flow node".into()),
        (
            "services:\n  web:\n    build: .\n",
            "line 3: services.web.build: images are not built here: build and push it, then name the image".into(),
        ),
        ("services:\n  web:\n    ports: []\n", "line 2: services.web: it has no image: name one".into()),
        ("services:\n  web: nginx\n", "line 2: services.web: it is not a map: write its fields below, image at least".into()),
        (
            "services:\n  db:\n    image: a\n    depends_on:\n      web:\n  # web:\n  web:\n    image: a:${TAG:-s3cret}\n",
            format!("line 8: services.web.image: \"${{TAG}}\" {variable}"),
        ),
        (
            "services:\n  web:\n    image: a\n    command:\n      - $HOME\n",
            format!("line 4: services.web.command[0]: \"$HOME\" {variable}"),
        ),
        (
            "services: {web: {image: a}}\nsecrets: {a: {}}\n",
            "line 2: secrets: files and values of the author's machine are not part of a release: put files into \
             the image, and pass values in environment variables of the device or fleet"
                .into(),
        ),
        (
            "services: {web: {image: a}}\ninclude: [b.yml]\n",
            "line 2: include: it is not supported: write services, networks and volumes only".into(),
        ),
        ("services: []\n", "line 1: services: it is not a map: write names with their fields below".into()),
        ("services:\n  web:\n    image: !secret a\n", "line 3: services.web.image: the tag !secret is not supported: remove it".into()),
        ("services:\n  web:\n    image: 5\n", "line 3: services.web.image: it is not a text: name the image".into()),
        (
            "services:\n  \"a.b\":\n    ports: []\n  web:\n    build: .\nname: $X\n",
            format!(
                "line 2: services.a.b: it has no image: name one\nline 5: services.web.build: images are not built \
                 here: build and push it, then name the image\nline 6: name: \"$X\" {variable}"
            ),
        ),
    ] {
        assert_eq!(errors(text), told, "{text}");
    }
    assert!(errors("services:\n  web:\n    image: a\n    image: b\n").contains("duplicate"), "a key twice");
    assert!(errors(&format!("a: {}", "[".repeat(10_000))).contains("recursion limit"));
}

#[test]
fn dollars() {
    for (text, wanted) in [
        ("a$$b", Ok("a$b")),
        ("$$$$", Ok("$$")),
        ("$${X}", Ok("${X}")),
        ("$X-y", Err("$X")),
        ("${X:-default}", Err("${X}")),
        ("$$$X", Err("$X")),
        ("costs 5$", Err("$")),
    ] {
        assert_eq!(plain(text), wanted.map(str::to_owned).map_err(str::to_owned), "{text}");
    }
}

#[test]
fn what_devices_refuse_is_refused_here() {
    let text =
        "services:\n  web:\n    image: a\n    ports: ['0']\n    pid: container:db\n    depends_on: [db]\n";
    let told: Vec<_> = check(&parse(text).unwrap(), &images(&["web"]))
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "services.web.ports[0]: \"0\" is not accepted: write ports from 1 to 65535",
            "services.web.pid: a container outside of the release cannot be joined: write \"service:NAME\" with a service of the release",
            "services.web.depends_on.db: there is no service db in the release: add it, or remove this",
        ]
    );
    let told = check(&parse(text).unwrap(), &images(&[])).unwrap_err();
    assert_eq!(
        told[0].to_string(),
        "services.web.image: its image was not resolved: check the image's name and the registry"
    );
}

#[test]
fn what_only_some_devices_allow_is_a_warning() {
    let text = "services:\n  web:\n    image: a\n    volumes: ['/srv:/srv']\n    privileged: true\n";
    let told = check(&parse(text).unwrap(), &images(&["web"])).unwrap();
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "services.web.volumes: devices refuse it unless their settings allow it: \"/srv\" is a path of the \
          host that releases may not mount: use a named volume, or put the files into the image, or add it to \
          policy.host_paths on the device"
        ]
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in "[a-z:$\\[\\]{}<&*!'\" \n-]{0,80}") {
        let _ = parse(&format!("services:\n  web:\n    image: a\n{text}"));
        let _ = parse(&text);
    }
}
