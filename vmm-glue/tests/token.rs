//! `livepath service` at a controller that wants a token.

#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use controller_stub::api::{Chain, Name};
use controller_stub::client::Client;
use controller_stub::server::{Options, Server};
use controller_stub::token::Token;
use tokio::runtime::Runtime;

/// Runs `livepath service fail svm2` at this controller; gives the exit code and what is said.
fn fail(url: &str, option: Option<&Path>, variable: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepath"));
    command.args(["service", "fail", "svm2", "--controller", url]).env_remove("LIVEPATH_TOKEN_FILE");
    if let Some(file) = option {
        command.arg("--token-file").arg(file);
    }
    if let Some(file) = variable {
        command.env("LIVEPATH_TOKEN_FILE", file);
    }
    let output = command.output().expect("the command runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).expect("text"))
}

#[test]
fn the_token_comes_from_a_file_of_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = Token::new("only-for-this-test").expect("a token");
    let runtime = Runtime::new().expect("a runtime");
    let options = Options { token: Some(token.clone()), ..Options::default() };
    let store = folder.path().join("store");
    let server = runtime.block_on(Server::bind_with(([127, 0, 0, 1], 0).into(), &store, options));
    let server = server.expect("the controller starts");
    let url = format!("http://{}", server.local_addr());
    runtime.spawn(server.serve(std::future::pending()));
    let chain: Chain =
        serde_json::from_str(r#"{"paths":[{"spi":1,"hops":["svm2"]}]}"#).expect("a good chain");
    let name = Name::new("inspect").expect("a good name");
    let client = Client::new(&url).expect("a good address").with_token(token);
    runtime.block_on(client.put_chain(&name, &chain)).expect("the controller takes it");

    let file = folder.path().join("token");
    fs::write(&file, "only-for-this-test\n").expect("the token is written");
    let (code, told) = fail(&url, None, None);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains(
            "changes need a token; name the file with the token with --token-file or LIVEPATH_TOKEN_FILE"
        ),
        "{told}"
    );
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("its mode is set");
    let (code, told) = fail(&url, Some(&file), None);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains(&format!("chmod 600 {}", file.display())), "{told}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode is set");
    for (option, variable) in [(Some(&*file), None), (None, Some(&*file))] {
        let (code, told) = fail(&url, option, variable);
        assert_eq!((code, told.as_str()), (Some(0), "fail svm2: told the controller\n"));
    }
    let (code, told) = fail(&url, Some(&folder.path().join("none")), None);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("/none: No such file"), "{told}");
}
