//! One run of a command of the operator's: no shell, a bound of time, a bound of what is read from it.

use std::{
    collections::BTreeMap,
    env,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use russet_core::errand::{Task, words};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// What a command wrote to its standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    octets: Vec<u8>,
}

impl Printed {
    /// The text, without blanks around it.
    ///
    /// # Errors
    ///
    /// What keeps it from being one that a lease carries: half of it would be worse than none.
    pub fn into_text(self) -> Result<String, String> {
        if self.octets.len() > MOST_PRINTED {
            return Err(format!("it printed more than {MOST_PRINTED} octets"));
        }
        let text = String::from_utf8(self.octets);
        let text = text.map_err(|err| format!("it printed what is not UTF-8: {err}"))?;
        Ok(text.trim().to_owned())
    }
}

/// Runs a command to its end, or kills it and all that it started when it does not come to one.
///
/// # Errors
///
/// What went wrong, in one line.
pub async fn run(task: &Task) -> Result<Printed, String> {
    run_within(task, TIME_LIMIT).await
}

async fn run_within(task: &Task, limit: Duration) -> Result<Printed, String> {
    let mut environment = inherited();
    environment.extend((*task.environment).clone());
    let words = words(&task.command, |name| environment.get(name).cloned());
    let [program, arguments @ ..] = words.as_slice() else {
        return Err("it names no program".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&environment).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|err| format!("start {program}: {err}"))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let (mut printed, mut told) = (Vec::new(), Vec::new());
    let ended = timeout(limit, converse(&mut child, &task.input, &mut printed, &mut told)).await;
    let Ok(status) = ended else {
        return Err(format!("it did not end within {} s and was killed", limit.as_secs_f32()));
    };
    let status = status.map_err(|err| format!("wait for {program}: {err}"))?;
    group.0 = None;
    if status.success() {
        return Ok(Printed { octets: printed });
    }
    Err(failure(status, if told.is_empty() { &printed } else { &told }))
}

/// Feeds the child, reads what it says, and waits for its end. What it leaves running in the background may hold its
/// output open; nobody waits for that.
async fn converse(
    child: &mut Child,
    input: &str,
    printed: &mut Vec<u8>,
    told: &mut Vec<u8>,
) -> std::io::Result<ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut talk = pin!(async {
        tokio::join!(feed(stdin, input), read(stdout, printed), read(stderr, told));
    });
    tokio::select! {
        status = child.wait() => {
            let _ = timeout(GRACE, talk).await;
            return status;
        }
        () = &mut talk => {}
    }
    child.wait().await
}

/// A command need not read what it is told.
async fn feed(stdin: Option<ChildStdin>, input: &str) {
    let Some(mut stdin) = stdin else { return };
    let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
}

/// Keeps one octet more than is taken, and reads on, so that nobody waits for a full pipe.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = [0; 4_096];
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        let room = (MOST_PRINTED + 1).saturating_sub(into.len());
        into.extend(piece.iter().take(len.min(room)));
    }
}

/// `exit status: 2: RTNETLINK answers: File exists`
fn failure(status: ExitStatus, told: &[u8]) -> String {
    let told = String::from_utf8_lossy(told);
    let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect();
    if shown.is_empty() { status.to_string() } else { format!("{status}: {shown}") }
}

/// The agent's own environment, but for what is said to the agent: passwords may be in it.
fn inherited() -> BTreeMap<String, String> {
    let ours = |name: &str| {
        name.starts_with("FLANNELD_") || name.starts_with("RUSSET_") || name == "NOTIFY_SOCKET"
    };
    let all = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    all.filter(|(name, _)| !ours(name)).collect()
}

/// A command and what it started; killed when dropped, unless the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // That it has gone already is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

const TIME_LIMIT: Duration = Duration::from_secs(20);
/// How long is waited for the rest of the output after a command's end.
const GRACE: Duration = Duration::from_millis(200);
/// As much as a lease carries; see `api::flannel`.
const MOST_PRINTED: usize = 16_384;
const MOST_SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_reads_its_input_and_finds_its_variables() {
        let printed = run(&task("sh /dev/fd/9 $SUBNET", "x")).await;
        assert!(printed.is_err(), "there is no such file: {printed:?}");
        assert_eq!(text_of("cat", "mac of 3").await.unwrap(), "mac of 3");
        assert_eq!(text_of("printenv SUBNET", "").await.unwrap(), "10.50.1.0/24");
        assert_eq!(text_of("echo ${SUBNET} a;b $(x)", "").await.unwrap(), "10.50.1.0/24 a;b $(x)");
    }

    #[tokio::test]
    async fn what_fails_says_how() {
        let told = run(&task("ls /no/such/place", "")).await.unwrap_err();
        assert!(told.contains("exit status") && told.contains("/no/such/place"), "{told}");
        assert_eq!(run(&task("false", "")).await.unwrap_err(), "exit status: 1");
        assert!(run(&task("no-such-program x", "")).await.unwrap_err().contains("start no-such"));
        assert!(run(&task("   ", "")).await.unwrap_err().contains("names no program"));
    }

    #[tokio::test]
    async fn what_does_not_end_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("hang");
        let pid = folder.path().join("pid");
        std::fs::write(&script, format!("sleep 1000 & echo $! > {}; wait", pid.display())).unwrap();
        let hang = task(&format!("sh {}", script.display()), "");
        let told = run_within(&hang, Duration::from_millis(500)).await.unwrap_err();
        assert!(told.contains("did not end within 0.5 s"), "{told}");
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = format!("/proc/{}/stat", pid.trim());
        for _ in 0..100 {
            match std::fs::read_to_string(&state) {
                Ok(stat) if !stat.contains(") Z ") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => return,
            }
        }
        panic!("its child lives on");
    }

    #[tokio::test]
    async fn what_it_leaves_in_the_background_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("daemon");
        std::fs::write(&script, "echo done; sleep 5 &").unwrap();
        let begun = Instant::now();
        let printed = text_of(&format!("sh {}", script.display()), "").await;
        assert_eq!(printed.unwrap(), "done");
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn as_much_as_it_may_print_is_read_and_more_is_said() {
        let told = text_of("head -c 1000000 /dev/zero", "").await.unwrap_err();
        assert!(told.contains("more than 16384 octets"), "{told}");
        let printed = text_of("head -c 16384 /dev/zero", "").await;
        assert_eq!(printed.unwrap().len(), 16_384);
    }

    /// What stands for an octet that is none of a text is three octets long, and no lease carries it.
    #[tokio::test]
    async fn what_is_no_text_is_not_taken_for_one() {
        let told = text_of("printf \\377\\377", "").await.unwrap_err();
        assert!(told.contains("not UTF-8"), "{told}");
    }

    async fn text_of(command: &str, input: &str) -> Result<String, String> {
        run(&task(command, input)).await?.into_text()
    }

    fn task(command: &str, input: &str) -> Task {
        let environment = BTreeMap::from([("SUBNET".to_owned(), "10.50.1.0/24".to_owned())]);
        Task { command: command.into(), environment: environment.into(), input: input.into() }
    }
}
