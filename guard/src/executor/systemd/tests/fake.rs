//! A node for tests: a bus of its own (dbus-daemon) with somebody on it who answers as systemd does, keeps drop-ins as it
//! does and writes cgroup files as it does; or answers worse.

use std::{
    collections::BTreeMap,
    fs,
    future::poll_fn,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;
use zbus::{
    Connection, MessageStream,
    connection::Builder,
    export::futures_core::Stream as _,
    message::{Message, Type},
    zvariant::{OwnedObjectPath, OwnedValue, Value},
};

use crate::{
    cgroup::Hierarchy,
    knob::{INFINITY, Property, Version},
};

/// How long a state may take to come.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks again and again until it is so.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A bus.
pub(super) struct Daemon {
    child: Child,
    socket: PathBuf,
    config: PathBuf,
}

fn spawn(config: &Path, socket: &Path) -> std::io::Result<Child> {
    let mut command = Command::new("dbus-daemon");
    command.arg("--config-file").arg(config).args(["--nofork", "--nopidfile"]).stdin(Stdio::null());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("the bus", || std::os::unix::net::UnixStream::connect(socket).is_ok());
    Ok(child)
}

impl Daemon {
    /// Starts one; None, with the reason on stderr, where there is no dbus-daemon.
    pub(super) fn start(dir: &Path) -> Option<Self> {
        let (socket, config) = (dir.join("bus"), dir.join("bus.conf"));
        let text = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             </policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        match spawn(&config, &socket) {
            Ok(child) => Some(Self { child, socket, config }),
            Err(error) => {
                eprintln!("skipped: cannot start dbus-daemon: {error}");
                None
            }
        }
    }

    /// Ends it and starts another one at the same address.
    pub(super) fn restart(&mut self) {
        self.end();
        self.child = spawn(&self.config, &self.socket).unwrap();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }

    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    pub(super) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Good,
    /// Not at all.
    Silent,
    /// With something else.
    Garbage,
    /// Setting is denied.
    Denying,
}

/// A unit.
#[derive(Clone, Debug)]
pub(super) struct FakeUnit {
    pub(super) control_group: String,
    pub(super) transient: bool,
    pub(super) is_active: bool,
    /// By its unit file.
    on_disk: BTreeMap<String, Property>,
    pub(super) properties: BTreeMap<String, Property>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) manner: Manner,
    pub(super) units: BTreeMap<String, FakeUnit>,
    /// What was set, in order: unit, property, value.
    pub(super) set: Vec<(String, String, Property)>,
    /// Texts of drop-ins, by what they say.
    said: BTreeMap<String, Property>,
    root: PathBuf,
}

/// The file system of a node, and who plays systemd.
pub(super) struct Node {
    pub(super) root: tempfile::TempDir,
    pub(super) daemon: Daemon,
    pub(super) state: Arc<Mutex<State>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Seven properties as systemd has them where nothing is set.
fn unset() -> BTreeMap<String, Property> {
    let numbers = ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "CPUWeight", "MemoryMax", "MemoryHigh", "TasksMax"];
    let numbers = numbers.into_iter().map(|name| (name.to_owned(), Property::Number(INFINITY)));
    numbers.chain([("AllowedCPUs".to_owned(), Property::Mask(Vec::new()))]).collect()
}

impl Node {
    /// `None`, with the reason on stderr, where there is no dbus-daemon.
    pub(super) fn start() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(root.path())?;
        for dir in ["run/systemd/system", "proc/sys/kernel/random", "proc/self", "cg"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::write(root.path().join("proc/sys/kernel/random/boot_id"), "boot-1").unwrap();
        let mount = "32 31 0:29 / /cg rw,relatime - cgroup2 cgroup2 rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), mount).unwrap();
        fs::write(root.path().join("cg/cgroup.controllers"), "cpu memory pids\n").unwrap();
        let state = State {
            manner: Manner::Good,
            units: BTreeMap::new(),
            set: Vec::new(),
            said: BTreeMap::new(),
            root: root.path().to_owned(),
        };
        let mut node = Self { root, daemon, state: Arc::new(Mutex::new(state)), end: None, thread: None };
        node.serve();
        Some(node)
    }

    /// systemd comes onto the bus.
    pub(super) fn serve(&mut self) {
        let (end, ended) = oneshot::channel();
        let (state, address) = (Arc::clone(&self.state), self.daemon.address());
        let (ready, is_ready) = std::sync::mpsc::channel();
        self.thread = Some(thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connection = Builder::address(address.as_str()).unwrap().build().await.unwrap();
                let stream = MessageStream::from(&connection);
                connection.request_name("org.freedesktop.systemd1").await.unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = answer(connection, stream, state) => {}
                    _ = ended => {}
                }
            });
        }));
        is_ready.recv_timeout(LIMIT).unwrap();
        self.end = Some(end);
    }

    /// It leaves.
    pub(super) fn leave(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "who plays systemd panicked");
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn hierarchy(&self) -> Hierarchy {
        let hierarchy = Hierarchy::detect(self.root.path()).unwrap();
        assert_eq!(hierarchy.version(), Version::V2);
        hierarchy
    }

    /// Makes a running unit with this quota, us per second.
    pub(super) fn unit(&self, name: &str, control_group: &str, quota: u64) {
        let mut on_disk = unset();
        on_disk.insert("CPUQuotaPerSecUSec".to_owned(), Property::Number(quota));
        let unit = FakeUnit {
            control_group: control_group.to_owned(),
            transient: name.ends_with(".scope"),
            is_active: true,
            properties: on_disk.clone(),
            on_disk,
        };
        let mut state = self.state();
        state.units.insert(name.to_owned(), unit);
        state.make_cgroup(name);
    }

    pub(super) fn file(&self, path: &str, name: &str) -> PathBuf {
        self.root.path().join("cg").join(path.trim_start_matches('/')).join(name)
    }

    pub(super) fn get(&self, path: &str, name: &str) -> String {
        fs::read_to_string(self.file(path, name)).unwrap_or_default().trim().to_owned()
    }

    pub(super) fn put(&self, path: &str, name: &str, text: &str) {
        put(&self.file(path, name), text);
    }

    pub(super) fn id(&self, path: &str) -> u64 {
        self.hierarchy().id(path).unwrap()
    }

    pub(super) fn property(&self, unit: &str, name: &str) -> Property {
        self.state().units[unit].properties[name].clone()
    }

    /// All drop-ins of a unit: names and texts.
    pub(super) fn drop_ins(&self, unit: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for dir in ["run/systemd/system.control", "run/systemd/transient"] {
            for entry in fs::read_dir(self.root.path().join(dir).join(format!("{unit}.d"))).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                // It may have gone meanwhile.
                found.extend(fs::read_to_string(entry.path()).ok().map(|text| (name, text)));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Thawed, it can end.
        self.daemon.signal(Signal::CONT);
        self.leave();
    }
}

impl State {
    fn cgroup(&self, name: &str) -> PathBuf {
        self.root.join("cg").join(self.units[name].control_group.trim_start_matches('/'))
    }

    pub(super) fn make_cgroup(&mut self, name: &str) {
        let dir = self.cgroup(name);
        fs::create_dir_all(&dir).unwrap();
        self.write_files(name);
    }

    /// Sets a property as somebody else does, too; `persistent` ones are kept elsewhere.
    pub(super) fn set(&mut self, unit: &str, property: &str, to: Property, persistent: bool) {
        self.units.get_mut(unit).unwrap().properties.insert(property.to_owned(), to.clone());
        let short = match property {
            "CPUQuotaPerSecUSec" => "CPUQuota",
            "CPUQuotaPeriodUSec" => "CPUQuotaPeriodSec",
            other => other,
        };
        let dir = match (self.units[unit].transient, persistent) {
            (true, _) => "run/systemd/transient",
            (false, false) => "run/systemd/system.control",
            (false, true) => "etc/systemd/system.control",
        };
        let dir = self.root.join(dir).join(format!("{unit}.d"));
        fs::create_dir_all(&dir).unwrap();
        let text = format!("# set-property\n[Unit]\n{property}={to}\n");
        fs::write(dir.join(format!("50-{short}.conf")), &text).unwrap();
        self.said.insert(text, to);
    }

    /// Writes all that is known to the cgroup's files. Without quota and weight there is no cpu controller.
    pub(super) fn write_files(&self, name: &str) {
        let (unit, dir) = (&self.units[name], self.cgroup(name));
        if !unit.is_active || !dir.is_dir() {
            return;
        }
        let number = |property: &str| match unit.properties[property] {
            Property::Number(number) => number,
            Property::Mask(_) => panic!("{property} is no number"),
        };
        let put = |name: &str, text: String| put(&dir.join(name), &text);
        let (quota, weight) = (number("CPUQuotaPerSecUSec"), number("CPUWeight"));
        if quota == INFINITY && weight == INFINITY {
            for name in ["cpu.max", "cpu.weight", "cpu.idle"] {
                let _ = fs::remove_file(dir.join(name));
            }
        } else {
            put("cpu.max", if quota == INFINITY { "max 100000".into() } else { format!("{} 100000", quota / 10) });
            put("cpu.weight", if weight == INFINITY { "100".into() } else { weight.max(1).to_string() });
            put("cpu.idle", u8::from(weight == 0).to_string());
        }
        let limit = |number: u64| if number == INFINITY { "max".into() } else { number.to_string() };
        put("memory.max", limit(number("MemoryMax")));
        put("memory.high", limit(number("MemoryHigh")));
        put("pids.max", limit(number("TasksMax")));
    }

    /// daemon-reload: everything is as the disk says, rounded, and is written anew.
    pub(super) fn reload(&mut self) {
        for (name, unit) in &mut self.units {
            unit.properties = unit.on_disk.clone();
            let dirs = ["run/systemd/transient", "run/systemd/system.control", "etc/systemd/system.control"];
            for dir in dirs {
                for entry in fs::read_dir(self.root.join(dir).join(format!("{name}.d"))).into_iter().flatten() {
                    let text = fs::read_to_string(entry.unwrap().path()).unwrap();
                    let property = text.lines().last().unwrap().split('=').next().unwrap().to_owned();
                    let value = match &self.said[&text] {
                        Property::Number(us) if property == "CPUQuotaPerSecUSec" && *us != INFINITY => {
                            Property::Number(us / 10_000 * 10_000)
                        }
                        value => value.clone(),
                    };
                    unit.properties.insert(property, value);
                }
            }
        }
        let names: Vec<String> = self.units.keys().cloned().collect();
        names.iter().for_each(|name| self.write_files(name));
    }

    /// Its processes end. A unit of a unit file can be loaded again.
    pub(super) fn stop(&mut self, name: &str) {
        let dir = self.cgroup(name);
        let unit = self.units.get_mut(name).unwrap();
        unit.is_active = false;
        fs::remove_dir_all(&dir).unwrap();
        if unit.transient {
            self.units.remove(name);
        }
    }
}

/// What is done after the answer, before the next one.
type Later = Option<String>;

async fn answer(connection: Connection, mut stream: MessageStream, state: Arc<Mutex<State>>) {
    loop {
        let next = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
        let Some(Ok(message)) = next else { return };
        if message.message_type() != Type::MethodCall || message.header().destination().is_none() {
            continue;
        }
        let later = reply(&connection, &message, &state).await;
        if let Some(name) = later {
            state.lock().unwrap().write_files(&name);
        }
    }
}

async fn reply(connection: &Connection, message: &Message, state: &Mutex<State>) -> Later {
    let header = message.header();
    let member = header.member().map(ToString::to_string).unwrap_or_default();
    let manner = state.lock().unwrap().manner;
    let fail = async |name: &str| {
        let name = format!("org.freedesktop.{name}");
        connection.reply_error(&header, name.as_str(), &"it is so").await.unwrap();
    };
    match manner {
        Manner::Silent => return None,
        Manner::Garbage => {
            connection.reply(&header, &(7_u8, "garbage")).await.unwrap();
            return None;
        }
        Manner::Good | Manner::Denying => {}
    }
    match member.as_str() {
        "GetUnit" | "LoadUnit" => {
            let name: String = message.body().deserialize().unwrap();
            let known = state.lock().unwrap().units.get(&name).map(|unit| unit.is_active);
            let bytes: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            let path = OwnedObjectPath::try_from(format!("/unit/{bytes}")).unwrap();
            match known {
                Some(is_active) if is_active || member == "LoadUnit" => connection.reply(&header, &path).await.unwrap(),
                None if member == "LoadUnit" => connection.reply(&header, &path).await.unwrap(),
                _ => fail("systemd1.NoSuchUnit").await,
            }
        }
        "Get" => {
            let (_, property): (String, String) = message.body().deserialize().unwrap();
            let path = header.path().unwrap().to_string();
            let hex = path.strip_prefix("/unit/").unwrap();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            let name = String::from_utf8(bytes.collect()).unwrap();
            let unit = state.lock().unwrap().units.get(&name).cloned();
            let value = match (property.as_str(), unit) {
                ("LoadState", unit) => Some(Value::from(if unit.is_some() { "loaded" } else { "not-found" })),
                ("ControlGroup", Some(unit)) if unit.is_active => Some(Value::from(unit.control_group)),
                ("ControlGroup", _) => Some(Value::from("")),
                ("Transient", Some(unit)) => Some(Value::from(unit.transient)),
                (_, Some(unit)) => unit.properties.get(&property).map(|value| match value {
                    Property::Number(number) => Value::from(*number),
                    Property::Mask(mask) => Value::from(mask.clone()),
                }),
                (_, None) => None,
            };
            match value {
                Some(value) => connection.reply(&header, &value).await.unwrap(),
                None => fail("DBus.Error.UnknownProperty").await,
            }
        }
        "SetUnitProperties" => {
            let body = message.body();
            let (name, runtime, values): (String, bool, Vec<(String, OwnedValue)>) = body.deserialize().unwrap();
            assert!(runtime, "a property was set for good");
            if manner == Manner::Denying {
                fail("DBus.Error.AccessDenied").await;
                return None;
            }
            if !state.lock().unwrap().units.contains_key(&name) {
                fail("systemd1.NoSuchUnit").await;
                return None;
            }
            {
                let mut state = state.lock().unwrap();
                for (property, value) in values {
                    let value = match u64::try_from(value.clone()) {
                        Ok(number) => Property::Number(number),
                        Err(_) => Property::from_bytes(Vec::try_from(value).unwrap()),
                    };
                    state.set.push((name.clone(), property.clone(), value.clone()));
                    state.set(&name, &property, value, false);
                }
            }
            connection.reply(&header, &()).await.unwrap();
            return Some(name);
        }
        other => panic!("nobody asks systemd for {other}"),
    }
    None
}

/// Writes a cgroup's file. As there, who reads meanwhile sees the old text or the new one, never a part: it is as long as any
/// other, and overwrites it in one call.
fn put(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(format!("{text:31}\n").as_bytes(), 0).unwrap();
}
