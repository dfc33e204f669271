use super::super::support::broker::API;
use super::*;

#[test]
fn a_program_gets_the_message_no_shell_and_no_variable_of_the_brokers() {
    let files = Home::new();
    let (got, env) = (files.path("got"), files.path("env"));
    // One record a line, so that nothing is lost where two run at a time.
    let program = files.write_program(
        "tell",
        &format!(
            "#!/bin/sh\nenv >{env:?}\nread -r line\nprintf '%s %s\\n' \"$1\" \"$line\" >>{got:?}\n"
        ),
    );
    let table =
        format!("\n[notify.own]\nkind = \"command\"\ncommand = [{program:?}, \"$(id); 'a b'\"]\n");
    let (services, _) = with(&table);
    tell(&services.broker, &[message("k")]);
    let line = wait_until("the program", SOON, || {
        std::fs::read_to_string(&got).ok().filter(|text| text.ends_with('\n'))
    });
    let json = line.strip_prefix("$(id); 'a b' ").unwrap_or_else(|| panic!("{line}"));
    let said: Value = serde_json::from_str(json).unwrap();
    assert_eq!(said["message"]["key"], "k");
    assert_eq!(said["contacts"]["alice"]["email"], "alice@example.com", "{said}");
    assert_eq!(said["contacts"]["bob"], json!({}));
    let env = std::fs::read_to_string(env).unwrap();
    let names: Vec<_> = env.lines().filter_map(|line| line.split('=').next()).collect();
    let known = ["PATH", "HOME", "PWD", "SHLVL", "_", "OLDPWD"];
    assert!(names.iter().all(|name| known.contains(name)), "{env}");
}

#[test]
fn a_program_that_hangs_or_fails_is_killed_and_asked_again_and_says_why() {
    let files = Home::new();
    let (mode, got) = (files.write("mode", "hangs"), files.path("got"));
    let program = files.write_program(
        "tell",
        &format!(
            "#!/bin/sh\ncase $(cat {mode:?}) in\nhangs) sleep 600 ;;\n\
             fails) echo 'the modem is broken' >&2; exit 3 ;;\n*) cat >>{got:?} ;;\nesac\n"
        ),
    );
    let (services, metrics) = with(&format!(
        "\n[notify.own]\nkind = \"command\"\ncommand = [{program:?}]\ntimeout = \"1s\"\n"
    ));
    tell(&services.broker, &[message("k")]);
    for (does, says) in [("hangs", "did not end within 1s"), ("fails", "the modem is broken")] {
        std::fs::write(&mode, does).unwrap();
        wait_until(says, SOON, || {
            let listed = listed(&services.broker);
            let why = listed.values().next()?["why"].as_str()?.to_string();
            why.contains(says).then_some(())
        });
        services.token("job", API);
    }
    assert!(metric(&metrics, "oldest_age_seconds", "channel=\"own\"") > 0.0);
    let table = notify(&services.broker, &["list"]).run().ok().stdout;
    assert!(table.contains("own") && table.contains("emergency"), "{table}");
    std::fs::write(&mode, "well").unwrap();
    wait_until("it to be told", SOON, || got.exists().then_some(()));
    wait_until("that to be known", SOON, || listed(&services.broker).is_empty().then_some(()));
    // What nobody takes is given up, and that is seen.
    std::fs::write(&mode, "fails").unwrap();
    let mut old = message("old");
    old["at"] = "2026-01-01T12:00:00Z".into();
    tell(&services.broker, &[old]);
    let given_up = "channel=\"own\",outcome=\"given_up\"";
    wait_until("it to be given up", SOON, || {
        (metric(&metrics, "deliveries_total", given_up) == 1.0).then_some(())
    });
    let listed = listed(&services.broker);
    let line = listed.values().next().unwrap();
    assert_eq!((&line["given_up"], &line["key"]), (&true.into(), &"old".into()));
    wait_until("it to be in the log", SOON, || {
        services.broker.said().contains("a message was given up").then_some(())
    });
}

#[test]
fn a_test_of_a_channel_that_is_not_there_names_those_that_are() {
    let (services, _) = with("\n[notify.own]\nkind = \"command\"\ncommand = [\"true\"]\n");
    let ok = notify(&services.broker, &["test", "own"]).run().ok();
    assert_eq!(ok.stdout, "The channel 'own' took it.\n");
    let refused = notify(&services.broker, &["test", "other"]).run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("there is no channel 'other'"), "{}", refused.stderr);
    assert!(refused.stderr.contains("own"), "{}", refused.stderr);
}
