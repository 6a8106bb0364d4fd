//! What images and charts take for granted.

use super::*;

#[tokio::test]
async fn everybody_can_open_its_standard_streams() {
    let house = House::new("streams");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("streams")).await.unwrap();
    let write = "echo out > /dev/stdout && echo err > /dev/stderr && cat /dev/stdin < /dev/null && echo fine";
    for (name, tty) in [("plain", false), ("tty", true)] {
        let mut config = subject.container(name, &["sh", "-c", &format!("{write}; sleep 1000")]);
        config.security.run_as_user = Some(1000);
        config.security.run_as_group = Some(1000);
        config.tty = tty;
        let id = subject.start(&sandbox, &config).await.unwrap();
        let log = subject.runtime.container_status(&id).await.unwrap().log_path;
        wait_for("the container has tried", || log_text(&log).contains("fine") || log_text(&log).contains("denied")).await;
        let text = log_text(&log);
        assert!(text.contains("out") && text.contains("err") && !text.contains("denied"), "{name}: {text}");
        let (code, text) = exec(&subject, &id, write).await;
        assert_eq!((code, text.contains("out") && text.contains("err")), (0, true), "{name}: {text}");
        let command = ["sh", "-c", write].map(str::to_owned).to_vec();
        let request = ExecRequest { command, tty: true, stdin: false, stdout: true, stderr: false };
        let session = subject.runtime.exec(&id, &request).await.unwrap();
        assert_eq!(session.exit.await.unwrap(), 0, "{name}: a command with a terminal");
    }
    house.close(subject).await;
}
