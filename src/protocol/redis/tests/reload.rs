//! What a reload changes for the sessions that it finds.

use super::*;
use crate::protocol::Class;

#[test]
fn a_session_obeys_new_settings_from_its_next_call_on() {
    let new = Redis {
        reject_code: "AWAY".into(),
        unbounded_commands: vec!["FT.*".into()],
        cures: vec!["REPLICAOF".into()],
        verdicts: Overrides { success: vec!["OOM".into()], ..Overrides::default() },
        ignore_script_errors: true,
    };
    let short = Duration::from_secs(1);
    scenario(|rig| {
        rig.passes(req("GET k"), "-OOM x\r\n");
        rig.settings.adopt(&new, &Timeouts { response: Some(short), ..timeouts() });
        assert_eq!(rig.settings.verdicts().row(b"OOM x").class, Class::Success);
        rig.client(req("GET k"));
        assert_eq!(rig.wait(), Wait::Backend(short));
        rig.server("-OOM x\r\n").passes(req("EVAL x 0"), "-LOADING x\r\n");
        assert_eq!((rig.run(), rig.count(Counter::Failure)), (0, 1));
        rig.client(req("AUTH p"));
        assert_eq!(rig.wait(), Wait::Backend(short), "a step of the handshake is a reply, too");
        rig.server("+OK\r\n").client(req("FT.SEARCH i q"));
        assert_eq!(rig.wait(), Wait::Nothing);
        rig.server("*0\r\n").trip().passes(req("REPLICAOF NO ONE"), "+OK\r\n");
        assert!(rig.refused(req("GET k")).starts_with("-AWAY backend 'cache' is open"));
        assert!(rig.refused(req("SCRIPT KILL")).starts_with("-AWAY"));
        rig.close().settings.adopt(&Redis::default(), &timeouts());
        rig.client(req("FT.SEARCH i q"));
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        rig.server("-OOM x\r\n");
        assert_eq!(rig.run(), 1);
    });
}
