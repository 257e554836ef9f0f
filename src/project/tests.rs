//! Projects in a folder, as an author has them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// Writes the files of a project; a line `== name` begins each.
fn project(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in text.split("== ").skip(1) {
        let (name, content) = part.split_once('\n').unwrap();
        let path = folder.path().join(name.trim());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn source(folder: &Path) -> Source {
    Source { directory: Some(folder.to_owned()), ..Source::default() }
}

fn services(folder: &Path, source: Source) -> Value {
    match load(&source) {
        Ok(project) => serde_json::to_value(&project.file.services).unwrap(),
        Err(errors) => panic!("{}: {errors:#?}", folder.display()),
    }
}

fn loaded(text: &str) -> Value {
    let folder = project(text);
    services(folder.path(), source(folder.path()))
}

/// The errors, one per line, without the folder.
fn errors(text: &str) -> String {
    let folder = project(text);
    errors_of(folder.path(), &source(folder.path()))
}

fn errors_of(folder: &Path, source: &Source) -> String {
    let errors = match load(source) {
        Ok(project) => project.without_image(false),
        Err(errors) => errors,
    };
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n").replace(&format!("{}/", folder.display()), "")
}

#[test]
fn variables_come_from_the_environment_then_from_the_file() {
    let folder = project(
        "== compose.yaml\nservices: {web: {image: 'a:$TAG', command: 'echo $A ${B:-b} $$C'}}\n== .env\nTAG=1\nA=file\n",
    );
    let mut source = source(folder.path());
    source.environment.insert("A".into(), "env".into());
    assert_eq!(services(folder.path(), source), json!({"web": {"image": "a:1", "command": "echo env b $C"}}));
}

#[test]
fn named_files_of_variables_replace_the_usual_one() {
    let folder =
        project("== compose.yaml\nservices: {web: {image: 'a:$TAG'}}\n== .env\nTAG=1\n== prod.env\nTAG=2\n");
    let mut source = source(folder.path());
    source.env_files.push(folder.path().join("prod.env"));
    assert_eq!(services(folder.path(), source), json!({"web": {"image": "a:2"}}));
}

#[test]
fn the_projects_name_is_a_variable() {
    let read = loaded(
        "== compose.yaml\nname: My-$X\nservices: {web: {image: 'a:$COMPOSE_PROJECT_NAME'}}\n== .env\nX=app\n",
    );
    assert_eq!(read["web"]["image"], "a:my-app");
    let read = loaded(
        "== compose.yaml\nname: mine\nservices: {web: {image: 'a:$COMPOSE_PROJECT_NAME'}}\n== .env\nCOMPOSE_PROJECT_NAME=env\n",
    );
    assert_eq!(read["web"]["image"], "a:env");
}

#[test]
fn texts_stay_as_they_are_written() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web:\n    image: a\n    environment: {VER: 1.10, EXP: 1e3, OCT: 0777, YES: yes, T: TRUE, N: 5, NULL: null, Q: '~'}\n    \
         labels: [a=1.10]\n    cpus: 0.50\n    privileged: yes\n    mem_limit: 5\n    pids_limit: 0x10\n",
    );
    assert_eq!(
        read["web"],
        json!({
            "image": "a", "labels": ["a=1.10"], "cpus": "0.50", "privileged": true, "mem_limit": 5, "pids_limit": 16,
            "environment": {"VER": "1.10", "EXP": "1e3", "OCT": "0777", "YES": "yes", "T": "TRUE", "N": "5", "NULL": null, "Q": "~"},
        })
    );
}

#[test]
fn env_files_are_below_the_services_own_variables() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web:\n    image: a\n    env_file:\n      - a.env\n      - {path: b.env, format: raw}\n      - {path: none.env, required: false}\n    \
         environment: [OWN=own, BARE, NONE]\n== a.env\nA=\"x $OWN\"\nOWN=a\n== b.env\nB='q'\nA2=$A\n== .env\nBARE=bare\n",
    );
    assert_eq!(
        read["web"]["environment"],
        json!({"A": "x own", "OWN": "own", "B": "'q'", "A2": "$A", "BARE": "bare", "NONE": null})
    );
}

#[test]
fn a_later_file_is_merged_over_an_earlier_one() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web:\n    image: a\n    command: one\n    environment: {A: 1, B: 2}\n    ports: ['80:80', '90:90']\n    \
         volumes: ['d:/d', 'e:/e']\n    depends_on: [db]\n    networks: [n]\n    dns: 1.1.1.1\n    cap_add: [A]\n    logging: {driver: x, options: {a: 1}}\n    healthcheck: {test: [CMD, a], interval: 5s}\n  db: {image: b}\n\
         == compose.override.yaml\nservices:\n  web:\n    command: [two]\n    environment: [B=3, C=4]\n    ports: ['80:80', '91:91']\n    \
         volumes: ['f:/d:ro']\n    depends_on: {db: {condition: service_healthy}}\n    networks: {n: {aliases: [x]}}\n    dns: [8.8.8.8]\n    cap_add: [B, A]\n    logging: {driver: y, options: {b: 2}}\n    healthcheck: {test: b}\n",
    );
    assert_eq!(
        read["web"],
        json!({
            "image": "a", "command": ["two"], "environment": {"A": "1", "B": "3", "C": "4"},
            "ports": ["80:80", "90:90", "91:91"], "volumes": ["f:/d:ro", "e:/e"],
            "depends_on": {"db": {"condition": "service_healthy"}}, "networks": {"n": {"aliases": ["x"]}},
            "dns": ["1.1.1.1", "8.8.8.8"], "cap_add": ["A", "B"], "logging": {"driver": "y", "options": {"b": "2"}},
            "healthcheck": {"test": "b", "interval": "5s"},
        })
    );
}

#[test]
fn tags_reset_and_override() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web: {image: a, ports: ['80:80'], environment: {A: 1, B: 2}, command: x}\n---\nservices:\n  web:\n    \
         ports: !override ['81:81']\n    environment: {A: !reset null}\n    command: !reset null\n",
    );
    assert_eq!(read["web"], json!({"image": "a", "ports": ["81:81"], "environment": {"B": "2"}}));
}

#[test]
fn anchors_and_merge_keys() {
    let read = loaded(
        "== compose.yaml\nx-a: &a {restart: always, labels: {a: 1}}\nx-b: &b {restart: 'no', tty: true}\nservices:\n  web: {<<: [*a, *b], image: a, labels: {b: 2}}\n  db: {<<: *b, image: b}\n",
    );
    assert_eq!(
        read,
        json!({
            "web": {"image": "a", "labels": {"b": "2"}, "restart": "always", "tty": true},
            "db": {"image": "b", "restart": "no", "tty": true},
        })
    );
}

#[test]
fn services_extend_others_of_the_file_and_of_other_files() {
    let read = loaded(
        "== compose.yaml\nservices:\n  base: {image: a, environment: {A: 1}}\n  web: {extends: base, environment: {B: 2}}\n  far: {extends: {file: sub/f.yaml, service: mid}, image: c}\n\
         == sub/f.yaml\nservices:\n  low: {image: b, env_file: low.env}\n  mid: {extends: {service: low}, tty: true}\n== sub/low.env\nLOW=1\n",
    );
    assert_eq!(read["web"], json!({"image": "a", "environment": {"A": "1", "B": "2"}}));
    assert_eq!(read["far"], json!({"image": "c", "tty": true, "environment": {"LOW": "1"}}));
}

#[test]
fn projects_are_included_with_their_own_variables_and_paths() {
    let read = loaded(
        "== compose.yaml\ninclude:\n  - sub/compose.yaml\n  - {path: [o/a.yaml, o/b.yaml], env_file: o.env}\nservices:\n  web: {image: a}\n  db: {tty: true}\n\
         == sub/compose.yaml\nservices: {db: {image: 'd:$TAG', env_file: d.env}}\n== sub/.env\nTAG=7\n== sub/d.env\nD=1\n== o/a.yaml\nservices: {o: {image: 'o:$TAG'}}\n== o/b.yaml\nservices: {o: {tty: true}}\n== o.env\nTAG=8\n",
    );
    assert_eq!(
        read,
        json!({
            "web": {"image": "a"}, "db": {"image": "d:7", "tty": true, "environment": {"D": "1"}},
            "o": {"image": "o:8", "tty": true},
        })
    );
}

#[test]
fn profiles_and_replicas_leave_services_out() {
    let text = "== compose.yaml\nservices:\n  web: {image: a, depends_on: [zero, gone]}\n  dbg: {image: b, profiles: [debug]}\n  zero: {image: c, scale: 0}\n  gone: {image: d, deploy: {replicas: 0}}\n";
    assert_eq!(loaded(text), json!({"web": {"image": "a"}}));
    let folder = project(text);
    let mut source = source(folder.path());
    source.profiles.push("debug".into());
    assert_eq!(services(folder.path(), source)["dbg"], json!({"image": "b"}));
    assert_eq!(
        errors(
            "== compose.yaml\nservices:\n  web:\n    image: a\n    depends_on:\n      - dbg\n  dbg: {image: b, profiles: [debug]}\n"
        ),
        "compose.yaml:5: services.web.depends_on.dbg: dbg is not in the release, because none of its profiles is chosen: choose one \
         with --profile, or write \"required: false\""
    );
}

#[test]
fn the_content_of_configs_secrets_and_read_only_files_goes_along() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web:\n    image: a\n    configs: [c, {source: f, target: /etc/f, mode: 0440}]\n    secrets: [s]\n    volumes: ['./n.conf:/etc/n.conf:ro', './data:/data', 'v:/v']\n\
         configs: {c: {content: 'x$V'}, f: {file: f.txt}}\nsecrets: {s: {environment: V}}\n== f.txt\nfile\n== n.conf\nport 80\n== .env\nV=1\n",
    );
    assert_eq!(
        read["web"],
        json!({
            "image": "a", "volumes": ["./data:/data", "v:/v"],
            "configs": [
                {"source": "c", "target": "/c", "content": "x1"},
                {"source": "f", "target": "/etc/f", "content": "file\n", "mode": 288},
                {"source": "s", "target": "/run/secrets/s", "content": "1"},
                {"source": "n.conf", "target": "/etc/n.conf", "content": "port 80\n", "mode": "0644"},
            ],
        })
    );
}

#[test]
fn every_error_has_its_file_and_its_line() {
    for (text, wanted) in [
        (
            "== compose.yaml\n",
            "compose.yaml:1: services: there is no service: write at least one, with an image",
        ),
        (
            "== compose.yaml\nservices:\n",
            "compose.yaml:1: services: there is no service: write at least one, with an image",
        ),
        (
            "== compose.yaml\n[]\n",
            "compose.yaml:1: it is not a compose file: write services with their names below",
        ),
        (
            "== compose.yaml\nservices: []\n",
            "compose.yaml:1: services: it is not a map: write names with their fields below",
        ),
        (
            "== compose.yaml\nservices:\n  web: nginx\n",
            "compose.yaml:2: services.web: it is not a map: write its fields below, image at least",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    ports: []\n",
            "compose.yaml:2: services.web: it has no image: name one",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    image: [a]\n",
            "compose.yaml:3: services.web.image: it is not a text: name the image",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    build: .\n",
            "compose.yaml:3: services.web.build: images are not built here: use `cotter push`, which builds them, or build and push it and \
             name the image",
        ),
        (
            "== compose.yaml\nservices:\n  web: {image: a}\nmodels: {m: {}}\n",
            "compose.yaml:3: models: it is not supported: write services, networks, volumes, configs and secrets only",
        ),
        (
            "== compose.yaml\na: [\n",
            "compose.yaml:2: it is not valid YAML: did not find expected node content, while parsing a flow node",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    image: a\n    image: b\n",
            "compose.yaml:4: services.web: \"image\" stands here and in line 3: remove one",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    image: !secret a\n",
            "compose.yaml:3: services.web.image: the tag !secret is not supported: remove it",
        ),
        (
            "== compose.yaml\nservices:\n  web:\n    image: a\n    command: ${X:?set X}\n  db:\n    image: ${}\n",
            "compose.yaml:4: services.web.command: the variable X has no value (set X): set it in the environment or in the file .env\n\
          compose.yaml:6: services.db.image: \"${…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $",
        ),
        (
            "== compose.yaml\nservices:\n  a: {extends: b}\n  b: {extends: a}\n",
            "compose.yaml:2: services.a.extends: the service extends itself, by way of others: remove one of them\n\
          compose.yaml:3: services.b.extends: the service extends itself, by way of others: remove one of them",
        ),
        (
            "== compose.yaml\nservices:\n  a: {extends: c}\n",
            "compose.yaml:2: services.a.extends: there is no service c in compose.yaml: correct the name",
        ),
        (
            "== compose.yaml\nservices:\n  a:\n    extends: {file: none.yaml, service: c}\n",
            "compose.yaml:3: services.a.extends: none.yaml: it cannot be read: No such file or directory (os error 2)",
        ),
        (
            "== compose.yaml\ninclude: [b.yaml]\n== b.yaml\ninclude: [compose.yaml]\n",
            "b.yaml:1: include[0]: \"compose.yaml\" is included by itself: remove one of the includes",
        ),
        (
            "== compose.yaml\ninclude: [none.yaml]\n",
            "none.yaml: it cannot be read: No such file or directory (os error 2)",
        ),
        (
            "== compose.yaml\nservices:\n  a:\n    image: a\n    env_file: a.env\n== a.env\nA=1\nB=\"x\n",
            "a.env:2: B: the quote \" is not closed: close it",
        ),
        (
            "== compose.yaml\nservices:\n  a:\n    image: a\n    env_file: none.env\n",
            "compose.yaml:4: services.a.env_file: none.env: it cannot be read: No such file or directory (os error 2)",
        ),
        (
            "== compose.yaml\nservices:\n  a:\n    image: a\n    configs:\n      - c\n",
            "compose.yaml:5: services.a.configs[0]: there is no c under configs: declare it, or correct the name",
        ),
        (
            "== compose.yaml\nservices:\n  a: &a\n    image: a\n    x: *a\n",
            "compose.yaml:4: services.a.x: *a is not an anchor that is complete before this: correct the name",
        ),
        (
            "== compose.yaml\nservices:\n  a: {image: a}\n== compose.override.yaml\nservices:\n  a: {tty: [x]}\n---\nservices:\n  a: {tty: {b: c}}\n",
            "compose.override.yaml:5: services.a.tty: it is a map here and a list in what it is merged into: write both alike, or tag this one with !override",
        ),
    ] {
        assert_eq!(errors(text), wanted, "{text}");
    }
}

#[test]
fn nothing_of_the_authors_machine_goes_along() {
    let read = loaded(
        "== compose.yaml\nservices:\n  web: {image: a, build: {context: ., args: {T: s3cret}}, develop: {watch: []}, x-mine: {a: b}}\n",
    );
    assert_eq!(read["web"], json!({"image": "a"}));
    for source in ["./data:/data", "./none.conf:/a:ro", ".:/app:ro"] {
        let text = format!(
            "== compose.yaml\nservices: {{web: {{image: a, volumes: ['{source}']}}}}\n== big\n{}",
            "x".repeat(140_000)
        );
        let folder = project(&text);
        let absolute = source.replacen('.', folder.path().to_str().unwrap(), 1);
        fs::write(
            folder.path().join("abs.yaml"),
            format!("services: {{web: {{image: a, volumes: ['{absolute}']}}}}\n"),
        )
        .unwrap();
        let mut named = self::source(folder.path());
        named.files.push(folder.path().join("abs.yaml"));
        assert!(
            errors_of(folder.path(), &named).contains("abs.yaml:1: services.web.volumes[0]: "),
            "{source}"
        );
    }
}

#[test]
fn hidden_files_of_a_folder_do_not_go_along_unnoticed() {
    let text =
        "== compose.yaml\nservices: {web: {image: a, volumes: ['./conf:/conf:ro']}}\n== conf/a.conf\na\n";
    assert_eq!(loaded(text)["web"]["configs"][0]["target"], "/conf/a.conf");
    assert!(
        errors(&format!("{text}== conf/sub/.env\nSECRET=1\n"))
            .contains("conf/sub/.env, which may not be meant for devices")
    );
}

#[test]
fn a_later_name_without_a_value_replaces_an_earlier_one() {
    let text = "== compose.yaml\nservices: {web: {image: a, environment: {T: dev, U: dev}}}\n== compose.override.yaml\nservices: {web: {environment: {T: , U: !reset null}}}\n";
    assert_eq!(loaded(text)["web"]["environment"], json!({"T": null}));
    let folder = project(text);
    let mut source = source(folder.path());
    source.environment.insert("T".into(), "prod".into());
    assert_eq!(services(folder.path(), source)["web"]["environment"], json!({"T": "prod"}));
}

#[test]
fn the_variables_of_compose_choose_files() {
    let folder = project(
        "== compose.yaml\nservices: {web: {image: main}}\n== x.yaml\nservices: {web: {image: 'x:$V'}}\n== .env\nCOMPOSE_FILE=x.yaml\nV=1\n== o.env\nV=2\nCOMPOSE_FILE=x.yaml\n",
    );
    assert_eq!(services(folder.path(), source(folder.path()))["web"]["image"], "x:1");
    let mut other = source(folder.path());
    other.environment.insert("COMPOSE_ENV_FILES".into(), folder.path().join("o.env").display().to_string());
    assert_eq!(services(folder.path(), other)["web"]["image"], "x:2");
    let mut none = source(folder.path());
    none.environment.insert("COMPOSE_DISABLE_ENV_FILE".into(), "1".into());
    none.environment.insert("COMPOSE_DISABLE_ENV_FILE".into(), "true".into());
    assert_eq!(services(folder.path(), none)["web"]["image"], "main");
}

#[test]
fn what_links_lead_out_of_the_project_is_not_read_unless_it_is_named() {
    let folder = project(
        "== p/compose.yaml\nservices: {web: {image: 'a:$V'}}\n== out.env\nV=1\n== out.yaml\nservices: {web: {image: b}}\n",
    );
    let inside = folder.path().join("p");
    std::os::unix::fs::symlink("../out.env", inside.join(".env")).unwrap();
    assert!(errors_of(&inside, &source(&inside)).contains(".env: it is outside of the project"));
    fs::remove_file(inside.join(".env")).unwrap();
    std::os::unix::fs::symlink("../out.yaml", inside.join("compose.override.yaml")).unwrap();
    assert!(
        errors_of(&inside, &source(&inside)).contains("compose.override.yaml: it is outside of the project")
    );
}

#[test]
fn a_release_without_a_service_is_refused() {
    let wanted =
        "services: no service is chosen: choose a profile with --profile, or give a service a replica";
    assert_eq!(
        errors("== compose.yaml\nservices: {web: {image: a, profiles: [x]}}\n"),
        format!("compose.yaml:1: {wanted}")
    );
    assert_eq!(
        errors("== compose.yaml\nservices: {web: {image: a, scale: 0}}\n"),
        format!("compose.yaml:1: {wanted}")
    );
}

#[test]
fn names_of_cotters_own_are_refused() {
    let text = "== compose.yaml\nservices: {web: {image: a, volumes: [{type: volume, source: v, target: /t, x-cotter-short: '/:/host'}]}}\n";
    assert!(errors(text).contains("\"x-cotter-short\" is a name of Cotter's own"));
}

#[test]
fn copies_are_bounded_in_bytes() {
    let long = "x".repeat(300_000);
    let anchored = format!("== compose.yaml\nx-a: &a '{long}'\nx-b:\n{}", "  - *a\n".repeat(6_000));
    assert!(errors(&anchored).contains("its texts have more than 8388608 bytes"));
    let filled = format!("== compose.yaml\nx-b:\n{}== .env\nA={long}\n", "  - $A\n".repeat(6_000));
    assert!(errors(&filled).contains("the project has more than 33554432 bytes"));
    let services: String = (0..3_000).map(|n| format!("  s{n}: {{image: a, configs: [c]}}\n")).collect();
    let configs = format!("== compose.yaml\nservices:\n{services}configs: {{c: {{content: '{long}'}}}}\n");
    assert!(
        errors(&configs)
            .contains("configs.c has 300000 bytes, and 131072 are accepted: put it into the image")
    );
    let services: String = (0..1_000).map(|n| format!("  s{n}: {{extends: a}}\n")).collect();
    let list: String = (0..9_000).map(|n| format!("      - o{n}\n")).collect();
    let extended =
        format!("== compose.yaml\nservices:\n  a:\n    image: a\n    security_opt:\n{list}{services}");
    assert!(errors(&extended).contains("the project has more than 1000000 values"));
    let lines: String = (0..60_000).map(|n| format!("A{n}=1\n")).collect();
    let read =
        loaded(&format!("== compose.yaml\nservices: {{web: {{image: 'a:$A59999'}}}}\n== .env\n{lines}"));
    assert_eq!(read["web"]["image"], "a:1");
    let many = format!("== compose.yaml\nx-a:\n{}", "  - a\n".repeat(10_001));
    assert!(errors(&many).contains("it has more than 10000 members: shorten it"));
}

/// A value of a variable may be a secret: a message names the variable.
#[test]
fn what_a_variable_brings_is_not_shown() {
    for (service, path, why, wanted) in [
        (
            "user: 0\n    restart: $TOKEN",
            "services.web.restart",
            "\"hunter2-secret\" is not accepted: write \"no\"",
            "compose.yaml:4: services.web.restart: the value of the variable TOKEN is not accepted: write \"no\"",
        ),
        (
            "image: 'r/${TOKEN}X'",
            "services.web.image",
            "\"r/hunter2-secretX\" is not an image reference: its path has upper-case letters",
            "compose.yaml:3: services.web.image: the value of the variable TOKEN is not accepted: its path has upper-case \
             letters",
        ),
        // The refused field is the list around it.
        (
            "volumes: ['${TOKEN}:/x']",
            "services.web.volumes",
            "there is no volume hunter2-secret: declare it",
            "compose.yaml:3: services.web.volumes: the value of the variable TOKEN is not accepted: declare it",
        ),
        // Only a part of it is shown.
        (
            "mem_limit: $TOKEN",
            "services.web.mem_limit",
            "\"hunter2-s…",
            "compose.yaml:3: services.web.mem_limit: the value of the variable TOKEN is not accepted: correct it",
        ),
        (
            "mem_limit: $PORT",
            "services.web.mem_limit",
            "\"80x\" is wrong",
            "compose.yaml:3: services.web.mem_limit: \"80x\" is wrong",
        ),
        (
            "mem_limit: ${NONE:-80-default}",
            "services.web.mem_limit",
            "\"80-default\" is wrong",
            "compose.yaml:3: services.web.mem_limit: \"80-default\" is wrong",
        ),
    ] {
        let folder = project(&format!(
            "== compose.yaml\nservices:\n  web:\n    {service}\n== .env\nTOKEN=hunter2-secret\nPORT=80x\n"
        ));
        let project = load(&source(folder.path())).unwrap();
        let finding = project.finding(&Refusal { path: path.into(), why: why.into() });
        assert_eq!(finding.to_string().replace(&format!("{}/", folder.path().display()), ""), wanted);
    }
    // Errors of the project itself.
    let errors = errors(
        "== compose.yaml\nservices:\n  web:\n    image: a\n    env_file: $TOKEN\n== .env\nTOKEN=hunter2-secret\n",
    );
    assert!(errors.contains("the variable TOKEN") && !errors.contains("hunter2"), "{errors}");
}

#[test]
fn the_names_in_a_folder_outside_of_the_project_are_not_looked_at() {
    let text = "== p/compose.yaml\nservices:\n  a:\n    image: a\n    volumes: ['../secret:/x:ro']\n== secret/.hidden\n1\n";
    let folder = project(text);
    let inside = folder.path().join("p");
    let errors = errors_of(&inside, &source(&inside));
    assert!(errors.contains("it is outside of the project") && !errors.contains(".hidden"), "{errors}");
}

#[test]
fn files_outside_of_the_project_are_not_read() {
    let folder = project(
        "== p/compose.yaml\nservices:\n  a:\n    image: a\n    env_file: ../secret.env\n== secret.env\nA=1\n== p/link.yaml\nservices: {a: {image: a, env_file: link.env}}\n",
    );
    let inside = folder.path().join("p");
    std::os::unix::fs::symlink("../secret.env", inside.join("link.env")).unwrap();
    let root = inside.canonicalize().unwrap();
    let outside = format!(
        "it is outside of the project ({}): copy it into the project, or allow it with --allow-outside",
        root.display()
    );
    assert_eq!(
        errors_of(&inside, &source(&inside)),
        format!(
            "compose.yaml:4: services.a.env_file: {}: {outside}",
            folder.path().join("secret.env").display()
        )
        .replace(&format!("{}/", inside.display()), "")
    );
    let mut linked = source(&inside);
    linked.files.push(inside.join("link.yaml"));
    assert_eq!(errors_of(&inside, &linked), format!("link.yaml:1: services.a.env_file: link.env: {outside}"));
    linked.allow_outside = true;
    assert_eq!(services(&inside, linked)["a"]["environment"], json!({"A": "1"}));
    // The folder above is a part of it where it is one repository.
    fs::create_dir(folder.path().join(".git")).unwrap();
    assert_eq!(services(&inside, source(&inside))["a"]["environment"], json!({"A": "1"}));
}

#[test]
fn input_is_bounded() {
    let large = format!("== compose.yaml\nservices: {{a: {{image: a}}}}\n# {}\n", "x".repeat(1 << 20));
    assert!(errors(&large).starts_with("compose.yaml: it has more than 1048576 bytes: shorten it"));
    let bomb = (1..12).fold("a0: &a0 [x, x, x, x, x]\n".to_owned(), |text, n| {
        let last = n - 1;
        format!("{text}a{n}: &a{n} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n")
    });
    let message = errors(&format!("== compose.yaml\n{bomb}"));
    assert!(
        message.ends_with("it has more than 100000 values, with those of its anchors: shorten it"),
        "{message}"
    );
    let deep = format!("== compose.yaml\na: {}", "[".repeat(10_000));
    assert!(errors(&deep).ends_with("it is nested deeper than 100 levels: flatten it"));
    let variables = format!(
        "== compose.yaml\nservices: {{a: {{image: a, command: '{}'}}}}\n== .env\nX={}\n",
        "$X".repeat(100),
        "x".repeat(100_000)
    );
    assert!(errors(&variables).ends_with("it has more than 1048576 bytes with its variables: shorten it"));
    let many: String = (0..5000).map(|n| format!("  s{n}: {{image: a}}\n")).collect();
    assert_eq!(loaded(&format!("== compose.yaml\nservices:\n{many}")).as_object().unwrap().len(), 5000);
}

#[test]
fn places_are_found_by_path() {
    let folder = project(
        "== compose.yaml\nservices:\n  a.b:\n    image: a\n    ports:\n      - '80:80'\n      - target: 1\n",
    );
    let project = load(&source(folder.path())).unwrap();
    for (path, line) in [
        ("services.a.b.ports[1].target", 6),
        ("services.a.b.ports[0]", 5),
        ("services.a.b.none", 2),
        ("networks.x", 1),
    ] {
        let found = project.finding(&Refusal { path: path.into(), why: String::new() });
        assert_eq!(found.place.map(|place| place.line), Some(line), "{path}");
    }
}

/// The table of docs/compose.md, field to verdict.
#[test]
fn every_field_of_the_file_has_its_row() {
    const FIELDS: &str = "configs include models name networks secrets services version volumes";
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compose.md")).unwrap();
    let (_, after) = text.split_once("\n## Top level\n").unwrap();
    let mut rows = BTreeMap::new();
    for line in after.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        rows.insert(cells[1].trim_matches('`').to_owned(), cells[2].to_owned());
    }
    for field in FIELDS.split_ascii_whitespace() {
        let more = match field {
            "services" => String::new(),
            "name" | "version" => format!("{field}: x\n"),
            "include" => "include: []\n".into(),
            "models" => "models: {a: {}}\n".into(),
            _ => format!("{field}: {{a: {{}}}}\n"),
        };
        let verdict = match parse(&format!("services:\n  web:\n    image: a\n{more}")) {
            Err(_) => "refused",
            Ok(project) if !project.warnings.is_empty() => "warned",
            Ok(_) => "honoured",
        };
        assert_eq!(rows.get(field).map(String::as_str), Some(verdict), "{field}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in "[a-z:$\\[\\]{}<&*!'\" \n-]{0,80}") {
        let _ = parse(&format!("services:\n  web:\n    image: a\n{text}"));
        let _ = parse(&text);
    }
}

/// The builds of a project, and its errors one per line, without the folder.
fn builds(text: &str) -> Result<(BTreeMap<String, Build>, String), String> {
    let folder = project(text);
    let mut source = source(folder.path());
    source.environment.insert("TOKEN".into(), "t".into());
    let mut project = load(&source).unwrap();
    let shown = folder.path().display().to_string();
    match project.take_builds() {
        Ok(builds) => Ok((builds, shown)),
        Err(errors) => {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Err(lines.join("\n").replace(&format!("{shown}/"), ""))
        }
    }
}

#[test]
fn a_build_is_read_with_all_its_fields() {
    let (builds, folder) = builds(
        r#"== compose.yaml
services:
  web:
    build:
      context: web
      dockerfile: ../Other
      args: [A=1, TOKEN, UNSET]
      labels: {a: b, n: 1.10}
      additional_contexts: [src=lib, base=docker-image://alpine]
      extra_hosts: {db: "::1", x: [1.2.3.4]}
      ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
      ssh: [default, "k=keys/id"]
      secrets: [one, {source: two, target: deux}]
      platforms: [linux/arm64]
      no_cache: "yes"
      pull: false
      shm_size: 64m
      x-note: none
  api:
    build: {dockerfile_inline: "FROM scratch"}
  git:
    build: https://example.com/a.git#main:sub
secrets:
  one: {file: ./one.txt}
  two: {environment: TOKEN}
== one.txt
1
== Other
FROM scratch
== web/a
== lib/a
"#,
    )
    .unwrap();
    let web = &builds["web"];
    assert_eq!(web.context, format!("{folder}/web"));
    assert_eq!(web.dockerfile, Some(format!("{folder}/Other")));
    assert_eq!(web.args, BTreeMap::from([("A".into(), "1".into()), ("TOKEN".into(), "t".into())]));
    assert_eq!(web.platforms, ["linux/arm64"]);
    let secrets: Vec<_> = web.secrets.iter().map(|secret| (secret.id.as_str(), &secret.from)).collect();
    let file = SecretFrom::File(format!("{folder}/one.txt").into());
    assert_eq!(secrets, [("one", &file), ("deux", &SecretFrom::Value("t".into()))]);
    let fields: Vec<_> =
        web.fields.iter().map(|field| format!("{} {:?}", field.name, field.values)).collect();
    let wanted = [
        r#"labels ["a=b", "n=1.10"]"#.to_owned(),
        format!(r#"additional_contexts ["src={folder}/lib", "base=docker-image://alpine"]"#),
        r#"extra_hosts ["db:::1", "x:1.2.3.4"]"#.to_owned(),
        r#"ulimits ["nofile=5", "nproc=1:2"]"#.to_owned(),
        format!(r#"ssh ["default", "k={folder}/keys/id"]"#),
        r#"no_cache ["true"]"#.to_owned(),
        r#"shm_size ["64m"]"#.to_owned(),
    ];
    assert_eq!(fields, wanted);
    assert_eq!(builds["api"].inline.as_deref(), Some("FROM scratch"));
    assert_eq!(builds["api"].context, folder);
    assert_eq!(builds["git"].context, "https://example.com/a.git#main:sub");
}

#[test]
fn errors_of_builds_are_found_all_at_once() {
    let errors = builds(
        r#"== compose.yaml
services:
  a: {build: nowhere}
  b:
    build:
      context: web
      dockerfile: Missing
      new_field: 1
      isolation: hyperv
      no_cache: maybe
      args: text
      extra_hosts: [db]
      ulimits: {nofile: {soft: 1}}
      additional_contexts: {x: "service:a", y: none}
      secrets: [no, {source: yes, mode: 0400}]
      target: [a]
  c: {build: web}
  d: {build: {context: web, dockerfile: a, dockerfile_inline: FROM scratch}}
  e: {build: /usr}
  f: {build: [a]}
== web/a
"#,
    )
    .unwrap_err();
    let wanted = "\
compose.yaml:2: services.a.build.context: there is no folder nowhere: correct the path
compose.yaml:7: services.b.build.new_field: docker's command line has no option for it: remove it, or build the image yourself and name it
compose.yaml:8: services.b.build.isolation: docker's command line has no option for it: remove it, or build the image yourself and name it
compose.yaml:9: services.b.build.no_cache: it is neither true nor false: write one of them
compose.yaml:10: services.b.build.args: it is a text: write \"NAME: value\" below
compose.yaml:11: services.b.build.extra_hosts: \"db\" has no address: write host=address
compose.yaml:12: services.b.build.ulimits.nofile: write a number, or soft and hard
compose.yaml:13: services.b.build.additional_contexts.x: docker's command line does not know services: name an image (docker-image://...) or a folder
compose.yaml:13: services.b.build.additional_contexts.y: there is no folder none: correct the path
compose.yaml:14: services.b.build.secrets[0]: there is no no under secrets: declare it, or correct the name
compose.yaml:14: services.b.build.secrets[1]: docker's command line has no option for mode: write it into the Dockerfile (RUN --mount=type=secret,mode=...)
compose.yaml:15: services.b.build.target: it is a list: write a text
compose.yaml:6: services.b.build.dockerfile: there is no file web/Missing: correct the path, which begins in the context
compose.yaml:16: services.c.build: there is no Dockerfile in web: write one, or name it with dockerfile
compose.yaml:17: services.d.build.dockerfile: there is dockerfile_inline, too: remove one of both
compose.yaml:18: services.e.build.context: /usr: it is outside of the project (FOLDER): copy it into the project, or allow it with --allow-outside
compose.yaml:19: services.f.build: it is a list: write a folder, or fields with context below";
    let errors = errors.lines().map(|line| match line.split_once("project (") {
        Some((start, rest)) => format!("{start}project (FOLDER{}", &rest[rest.find(')').unwrap()..]),
        None => line.to_owned(),
    });
    assert_eq!(errors.collect::<Vec<_>>().join("\n"), wanted);
}
