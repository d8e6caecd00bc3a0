//! Who may reach the admin API.

use super::*;

#[test]
fn an_admin_api_for_other_machines_needs_a_token_or_a_word_that_it_does_not() {
    let base = ["--redis", "upstream=h:1", "--admin"];
    let with = |more: &[&str]| load(&inputs(&[&base[..], more].concat()), &Env::new());
    for near in ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/admin.sock", "off"] {
        assert!(with(&[near]).is_ok(), "{near}");
    }
    for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "fusewire.internal:1"] {
        let error = with(&[far]).unwrap_err().to_string();
        let words = "can be reached from other machines; give admin_token_file, or admin_insecure = true";
        assert_eq!(error, format!("configuration: admin: {far} {words}"));
        assert!(with(&[far, "--admin-token-file", "token"]).is_ok());
        assert!(with(&[far, "--admin-insecure", "true"]).is_ok());
    }
    let config = with(&["127.0.0.1:1", "--admin-hosts", "a.internal+b"]).unwrap();
    assert_eq!(config.admin_access.hosts, ["a.internal".into(), "b".into()]);
    let error = with(&["127.0.0.1:1", "--admin-hosts", "http://a"]).unwrap_err().to_string();
    assert!(error.contains("is not a host name"), "{error}");
}
