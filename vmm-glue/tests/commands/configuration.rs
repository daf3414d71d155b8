//! `livepathd --check`, and SIGHUP with a file that cannot be taken.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use vmm_glue::admin::ConfigView;

use crate::site::{CHAIN, Site, configuration, until};

fn check(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepathd"));
    command.arg("--config").arg(file).arg("--check");
    command
}

#[test]
fn a_good_file_is_good_and_a_bad_one_is_told_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let good = configuration(folder.path(), CHAIN);
    std::fs::write(&file, &good).unwrap();
    let output = check(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{}: good, 4 ports, 1 chains\n", file.display())
    );

    let bad = good.replace("id = 1\n", "id = 0\ncolour = 3\n").replace("spi = 2", "spi = 1");
    std::fs::write(&file, bad).unwrap();
    let output = check(&file).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let told = String::from_utf8_lossy(&output.stderr);
    let place = file.display();
    for words in [
        "error: host: id = 0: is no host number\n".to_owned(),
        format!("--> {place}:2:6\n"),
        "2 | id = 0\n  |      ^ use 1 to 65535".to_owned(),
        "error: host: colour = 3: there is no such key\n".to_owned(),
        "error: chain inspect: path: spi = 1: a path of chain inspect has it\n".to_owned(),
        format!("error: {place} cannot be used: 3 faults\n"),
    ] {
        assert!(told.contains(&words), "no {words:?} in:\n{told}");
    }
    assert!(!told.contains('\x1b'), "no colour in a pipe: {told}");
}

/// The superuser may write anywhere, so somebody else is asked.
#[test]
fn a_folder_that_may_not_be_written_to_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::set_permissions(elsewhere.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = elsewhere.path().join("t.toml");
    std::fs::write(&file, configuration(folder.path(), CHAIN)).unwrap();
    let mut command = check(&file);
    // The program may lie where only root may look, so it is opened before.
    let program = std::fs::File::open(env!("CARGO_BIN_EXE_livepathd")).unwrap();
    if rustix::process::getuid().is_root() {
        command = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&program)));
        command.arg("--config").arg(&file).arg("--check");
        rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).unwrap();
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let place = folder.path().display();
    for name in ["admin.sock", "vm5", "vm6", "svm1", "svm2"] {
        let words = format!("= \"{place}/{name}\": livepathd may not write to the folder {place}\n");
        assert!(told.contains(&words), "no {words:?} in:\n{told}");
    }
    assert!(told.contains(&format!("^ let it: chown or chmod {place} for the user it runs as")), "{told}");
}

fn file_view(site: &Site) -> ConfigView {
    site.status().and_then(|status| status.host.config).expect("a daemon that answers")
}

fn refused(site: &Site, words: &str) {
    site.signal("-HUP");
    let reason = until("the file is refused", || {
        file_view(site).refused.map(|refused| refused.reason).filter(|reason| reason.contains(words))
    });
    let spis: Vec<u32> = site.status().unwrap().paths.iter().map(|path| path.spi).collect();
    assert_eq!(spis, [1, 2], "nothing changed");
    // The same is an event and a line of the log, and stands out in the status.
    let events = site.json(&["events", "--json"]);
    let last = events.iter().rev().find(|event| event["kind"] == "reload-refused").expect("an event");
    assert_eq!(last["reason"], *reason);
    assert!(site.says(&["status"]).contains("NOT taken when read again"));
    until("the log has it", || site.log().contains("configuration not taken, nothing changed").then_some(()));
}

#[test]
fn a_file_that_cannot_be_taken_changes_nothing_and_says_so_everywhere() {
    let site = Site::start();
    let before = file_view(&site);
    assert_eq!(before.refused, None);

    site.write(&CHAIN.replace("\"svm2\"", "\"svm9\""));
    refused(&site, "hops = [\"svm1\", \"svm9\"]: there is no port svm9; name service ports of this file");
    let text = std::fs::read_to_string(site.file()).unwrap();
    std::fs::write(
        site.file(),
        text.replace("svm9", "svm2").replace("\n[[chain]]", "\ncolour = 3\n[[chain]]"),
    )
    .unwrap();
    refused(&site, "colour = 3: there is no such key");
    let text = configuration(site.folder.path(), CHAIN);
    std::fs::write(site.file(), text.replace("id = 1\n", "id = 1\nflows = 2048\nworkers = 2\n")).unwrap();
    refused(&site, "[host] has another workers, flows; these cannot change while livepathd runs: restart it");
    std::fs::remove_file(site.file()).unwrap();
    refused(&site, "cannot read");

    site.write(&CHAIN.replace("spi = 2", "spi = 3"));
    site.signal("-HUP");
    let after =
        until("the new file is taken", || Some(file_view(&site)).filter(|view| view.refused.is_none()));
    assert!(after.since.unix_millis() > before.since.unix_millis());
    assert_eq!(site.status().unwrap().paths[1].spi, 3);
    assert!(!site.says(&["status"]).contains("NOT taken"));
}

/// The exit code of `livepath reload`, and what it said.
fn reload(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("livepath runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn a_reload_waits_for_the_daemons_answer() {
    let site = Site::start();
    let file = site.file();
    let place = file.display().to_string();
    let says = |arguments: &[&str]| reload(site.livepath().arg("reload").args(arguments));
    let of_file = ["--config", &place];

    site.write(&CHAIN.replace("spi = 2", "spi = 3"));
    assert_eq!(says(&[]), (Some(0), format!("{place} taken, its chains in force\n")));
    assert_eq!(site.status().unwrap().paths[1].spi, 3, "in force when the command ends");
    let text = configuration(site.folder.path(), CHAIN);
    std::fs::write(&file, text.replace("[[chain]]", &format!("{}\n[[chain]]", port(&site, "vm7")))).unwrap();
    let taken = &site.json(&["reload", "--json"])[0];
    assert_eq!(taken["ports"], serde_json::json!({"added": ["vm7"]}));
    assert_eq!(taken["file"], *place);

    std::fs::write(&file, text.replace("id = 1\n", "id = 1\nflows = 2048\n")).unwrap();
    let (code, said) = says(&[]);
    let words =
        "error: the file is not taken, nothing changed; [host] has another flows; these cannot change";
    assert!(code == Some(1) && said.starts_with(words), "{said}");
    std::fs::write(&file, text.replace("id = 1\n", "id = 0\n")).unwrap();
    let (code, said) = says(&[]);
    assert!(
        code == Some(1) && said.contains(&format!("{place}:2: host: id = 0: is no host number")),
        "{said}"
    );
    let (code, said) = says(&of_file);
    assert!(code == Some(2) && said.contains("^ use 1 to 65535"), "{said}");

    // A file finds its daemon, also when that listens elsewhere until it is started again.
    std::fs::write(&file, &text).unwrap();
    let anywhere = |arguments: &[&str]| reload(crate::site::livepath().arg("reload").args(arguments));
    let (code, said) = anywhere(&of_file);
    assert_eq!((code, said.contains("removed: vm7")), (Some(0), true), "{said}");
    std::fs::write(&file, text.replace("/admin.sock", "/other.sock")).unwrap();
    let (code, said) = says(&of_file);
    assert!(code == Some(1) && said.contains("[host] has another admin"), "{said}");
    let (code, said) = anywhere(&of_file);
    assert!(code == Some(1) && said.contains("/other.sock; is it running?"), "{said}");
}

/// One more tenant port.
fn port(site: &Site, name: &str) -> String {
    let socket = site.folder.path().join(name);
    let (socket, mac) = (socket.display(), "52:54:00:00:00:07");
    format!("[[port]]\nname = \"{name}\"\nrole = \"tenant\"\nsocket = \"{socket}\"\nmac = \"{mac}\"\n")
}
