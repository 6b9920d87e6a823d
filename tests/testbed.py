#!/usr/bin/python3
"""testbed.py - a multi-host SSH farm on one Linux machine (root, stdlib only).

Each host is a set of namespaces (net, mount, pid, uts, ipc) with its own sshd, IP address, host name, and a
copy-on-write root file system (overlay of this machine's / on a private, size-limited tmpfs: the host's "disk").
A host shows only the distribution's own files: homes, /tmp, /opt, the tree one stands in, site packages and pyenv are hidden, so
`python3` there is the bare system interpreter.  Nothing on the machine itself is changed except one bridge.

  up N [--share SRC:DST]... [--mem 2g] [--cpus 1.0] [--disk 2g] [--show-mem 16g] [--show-cores 8] [--pyenv] [--bind SRC:DST]... [--sshd "MaxSessions 10"]...
                        start hosts h1..hN (idempotent: running hosts are left alone)
  down                  stop and remove everything this testbed started
  status                one line per host
  cut HOST              silent partition (packets vanish, carrier stays)       cut HOST --hard: carrier lost
  heal HOST             undo cut
  crash HOST            power loss: every process of the host dies at once, its network disappears; its disk stays
  boot HOST             start a crashed host again (same address, host key, disk)
  freeze HOST / thaw HOST   hang: SIGSTOP / SIGCONT every process of the host (TCP stays up, nothing answers)
  shape HOST RTT RATE [LOSS]   e.g. shape h1 20ms 100mbit 1%   (half the RTT each way; RATE each way; '-' = leave unlimited)
  unshape HOST
  fill HOST [LEFT]      fill the disk but for LEFT (default 0) / unfill HOST
  skew HOST SECONDS     shift the wall clock seen by new SSH sessions (needs libfaketime) / skew HOST 0
  wipe HOST             new empty disk (host must be crashed)
  exec HOST CMD...      run CMD inside the host as root, without SSH
  ssh HOST [CMD...]     ssh with the generated configuration

Log in:  ssh -F DIR/ssh_config h1   (user farm, uid 6001; -l root works too).   Environment: TESTBED_ID=0..200 picks an
independent testbed (own bridge, subnet 10.77.ID.0/24, directory /tmp/afarm-testbed-ID).
"""

# A test tool of its own, dense on purpose: one file that can be copied to any machine and run by
# its bare Python. Not held to the style of the package.
# ruff: noqa
# fmt: off
# mypy: ignore-errors
import argparse, ctypes, fcntl, glob, heapq, json, os, random, re, select, shlex, shutil, signal, socket, struct, subprocess, sys, time

ID = int(os.environ.get("TESTBED_ID", "0"))
DIR = os.environ.get("TESTBED_DIR", f"/tmp/afarm-testbed-{ID}")
BR = f"aftb{ID}"
NET = f"10.77.{ID}"
STATE = f"{DIR}/state.json"
HIDE = ["root", "home", "tmp", "opt", "mnt", "srv", "usr/local/lib", "usr/local/bin", "usr/lib/python3/dist-packages", "var/tmp", "var/log"]
SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr", "var")
HERE = os.path.realpath(os.getcwd()).split("/")[1]
if HERE and HERE not in SYSTEM and HERE not in HIDE:
    HIDE.append(HERE)  # the project's own tree
MARK = "AFARM_TESTBED"
libc = ctypes.CDLL(None, use_errno=True)


def sh(cmd, check=True, quiet=False):
    r = subprocess.run(cmd, shell=isinstance(cmd, str), capture_output=True, text=True)
    if check and r.returncode:
        raise SystemExit(f"testbed: {cmd} failed: {r.stderr.strip()}")
    return r


def size(s):
    m = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)b?", str(s).lower())
    if not m:
        raise SystemExit(f"testbed: bad size {s}")
    return int(float(m[1]) * 1024 ** " kmgt".index(m[2] or " "))


def load():
    try:
        with open(STATE) as f:
            return json.load(f)
    except FileNotFoundError:
        return {"hosts": {}}


def save(st):
    os.makedirs(DIR, exist_ok=True)
    with open(STATE + ".new", "w") as f:
        json.dump(st, f, indent=1)
    os.replace(STATE + ".new", STATE)


def start_time(pid):
    """identity of a process: pids are reused, (pid, start time) pairs are not"""
    try:
        with open(f"/proc/{pid}/stat") as f:
            d = f.read().rsplit(")", 1)[1].split()
            return None if d[0] == "Z" else int(d[19])
    except (OSError, TypeError):
        return None


def alive(rec):
    return bool(rec) and rec[0] and start_time(rec[0]) == rec[1]


def kill(rec, sig=signal.SIGKILL, wait=5.0):
    if not alive(rec):
        return
    os.kill(rec[0], sig)
    end = time.time() + wait
    while alive(rec) and time.time() < end:
        time.sleep(0.01)


def index(h):
    m = re.fullmatch(r"h(\d+)", h)
    if not m:
        raise SystemExit(f"testbed: no such host {h}")
    return int(m[1])


def ip_of(h):
    return f"{NET}.{index(h)}"


def mac_of(h):
    return f"02:af:{ID:02x}:00:00:{index(h):02x}"


def vport(h):
    return f"tb{ID}v{index(h)}"


def tap(h):
    return f"tb{ID}t{index(h)}"


# ---------------------------------------------------------------- cgroups (optional)
def cgroup_base(ctrl):
    """a directory where we may make child groups of controller ctrl, inside our own group; None if there is none"""
    mounts = [l.split() for l in open("/proc/self/mounts")]
    own = [l.strip().split(":", 2) for l in open("/proc/self/cgroup")]
    for _, names, path in own:
        if ctrl in names.split(","):
            for m in mounts:
                if m[2] == "cgroup" and ctrl in m[3].split(","):
                    return 1, m[1] + path.rstrip("/")
    for _, names, path in own:
        if names == "":
            for m in mounts:
                if m[2] == "cgroup2":
                    d = m[1] + path.rstrip("/")
                    try:
                        if ctrl in open(d + "/cgroup.subtree_control").read().split():
                            return 2, d
                    except OSError:
                        pass
    return None


def limit(h, pid, mem, cpus):
    made, notes = [], []
    for ctrl, val in (("memory", mem), ("cpu", cpus)):
        if not val:
            continue
        base = cgroup_base(ctrl)
        if not base:
            notes.append(f"no usable {ctrl} cgroup: limit not applied")
            continue
        v, d = base
        g = f"{d}/aftb{ID}-{h}"
        os.makedirs(g, exist_ok=True)
        if g not in made:
            made.append(g)
        if ctrl == "memory":
            open(g + ("/memory.limit_in_bytes" if v == 1 else "/memory.max"), "w").write(str(size(val)))
        elif v == 1:
            open(g + "/cpu.cfs_period_us", "w").write("20000")
            open(g + "/cpu.cfs_quota_us", "w").write(str(int(20000 * float(val))))
        else:
            open(g + "/cpu.max", "w").write(f"{int(20000 * float(val))} 20000")
        open(g + "/cgroup.procs", "w").write(str(pid))
    return made, notes


# ---------------------------------------------------------------- the host's own init (pid 1 of its pid namespace)
def mount(src, dst, typ=None, flags=0, data=None):
    e = lambda s: s.encode() if s is not None else None
    if libc.mount(e(src), e(dst), e(typ), ctypes.c_ulong(flags), e(data)):
        n = ctypes.get_errno()
        raise OSError(n, f"mount {src} {dst}: {os.strerror(n)}")


MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def host_init(h):
    cfg = json.loads(os.environ[MARK])
    d = f"{DIR}/{h}"
    root, disk = f"{d}/root", f"{d}/disk"
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    libc.sethostname(h.encode(), len(h))
    up = f"{disk}/upper"
    fresh = not os.path.exists(up)
    for p in (up, f"{disk}/work", root):
        os.makedirs(p, exist_ok=True)
    if fresh:
        for p in HIDE:  # opaque directories: the machine's own content does not show through
            q = f"{up}/{p}"
            parts = p.split("/")
            for i in range(1, len(parts)):  # parents keep the machine's modes
                s, t = "/" + "/".join(parts[:i]), f"{up}/" + "/".join(parts[:i])
                if os.path.isdir(s) and not os.path.isdir(t):
                    os.mkdir(t, os.stat(s).st_mode & 0o7777)
            os.makedirs(q, exist_ok=True)
            os.setxattr(q, "trusted.overlay.opaque", b"y")
            os.chmod(q, 0o1777 if p in ("tmp", "var/tmp") else 0o711 if p == "root" else 0o755)
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={up},workdir={disk}/work")
    if fresh:
        with open(f"{root}/etc/passwd", "a") as f:
            f.write("farm:x:6001:6001::/home/farm:/bin/bash\n")
        with open(f"{root}/etc/group", "a") as f:
            f.write("farm:x:6001:\n")
        with open(f"{root}/etc/shadow", "a") as f:
            f.write("farm:*:19000:0:99999:7:::\n")
        open(f"{root}/etc/hostname", "w").write(h + "\n")
        with open(f"{root}/etc/hosts", "w") as f:
            f.write("127.0.0.1 localhost\n" + "".join(f"{NET}.{i} h{i}\n" for i in range(1, 100)) + f"{NET}.254 controller\n")
        for home, uid in (("root", 0), ("home/farm", 6001)):
            s = f"{root}/{home}/.ssh"
            os.makedirs(s, mode=0o700, exist_ok=True)
            shutil.copy(f"{DIR}/id.pub", s + "/authorized_keys")
            for q in (f"{root}/{home}", s, s + "/authorized_keys"):
                os.chown(q, uid, uid)
    for b in cfg["bind"]:
        s, t = b.split(":")
        os.makedirs(root + t, exist_ok=True)
        mount(s, root + t, None, MS_BIND | MS_REC)
        mount(None, root + t, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    for b in cfg.get("share") or []:
        s, t = b.split(":")
        os.makedirs(root + t, exist_ok=True)
        mount(s, root + t, None, MS_BIND | MS_REC)
    # /dev /proc /sys /run of its own
    mount("tmpfs", f"{root}/dev", "tmpfs", 0, "mode=755,size=1m")
    for n, maj, mi in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)):
        os.mknod(f"{root}/dev/{n}", 0o666 | 0o020000, os.makedev(maj, mi))
        os.chmod(f"{root}/dev/{n}", 0o666)
    os.mkdir(f"{root}/dev/pts"), os.mkdir(f"{root}/dev/shm", 0o1777)
    mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", 0, "mode=1777")
    mount("tmpfs", f"{root}/run", "tmpfs", 0, "mode=755,size=64m")
    mount("proc", f"{root}/proc", "proc")
    mount("sysfs", f"{root}/sys", "sysfs", MS_RDONLY)
    os.makedirs(f"{root}/run/sshd")
    if cfg["show_mem"]:  # what the host claims to have (free, psutil)
        kb = size(cfg["show_mem"]) // 1024
        t = open("/proc/meminfo").read()
        for k, f in (("MemTotal", 1.0), ("MemFree", 0.9), ("MemAvailable", 0.95)):
            t = re.sub(rf"^{k}:.*$", f"{k}: {int(kb * f):>14} kB", t, flags=re.M)
        open(f"{root}/run/meminfo", "w").write(t)
        mount(f"{root}/run/meminfo", f"{root}/proc/meminfo", None, MS_BIND)
    if cfg["show_cores"]:  # what os.cpu_count() says
        open(f"{root}/run/online", "w").write(f"0-{int(cfg['show_cores']) - 1}\n" if int(cfg["show_cores"]) > 1 else "0\n")
        for n in ("online", "possible", "present"):
            mount(f"{root}/run/online", f"{root}/sys/devices/system/cpu/{n}", None, MS_BIND)
    key = f"{root}/etc/ssh/aftb_host_key"
    shutil.copy(f"{d}/host_key", key), os.chmod(key, 0o600)
    skew = cfg.get("skew") or 0
    env = "SetEnv LD_PRELOAD=%s FAKETIME=%+ds" % (cfg["faketime"], skew) if skew else ""
    with open(f"{root}/etc/ssh/aftb_sshd_config", "w") as f:
        own = "\n".join(cfg["sshd"])
        f.write(f"{own}\nPort 22\nListenAddress {ip_of(h)}\nHostKey /etc/ssh/aftb_host_key\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
                f"StrictModes no\nPrintMotd no\nUseDNS no\nPidFile /run/sshd.pid\nSubsystem sftp internal-sftp\nAcceptEnv LANG LC_*\n{env}\n")
    # wait for the network cable, plugged in by the parent
    for _ in range(2000):
        if os.path.exists(f"/proc/self/net/dev") and "eth0" in open("/proc/self/net/dev").read():
            break
        time.sleep(0.005)
    sh("ip link set lo up")
    sh(f"ip addr add {ip_of(h)}/24 dev eth0 && ip link set eth0 up && ip route add default via {NET}.254 && ip neigh replace {NET}.254 lladdr 02:af:{ID:02x}:ff:ff:fe nud permanent dev eth0", check=False)
    os.makedirs(f"{root}/.oldroot", exist_ok=True)
    os.chdir(root)
    if libc.syscall(155, b".", b".oldroot"):  # pivot_root (x86-64)
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/")
    libc.umount2(b"/.oldroot", 2)
    os.environ.clear()
    os.environ.update(PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", HOME="/root")
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open("/var/log/sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0), os.dup2(log, 1), os.dup2(log, 2)
    p = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/aftb_sshd_config"])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:  # reap orphans for ever, as an init does
        try:
            os.wait()
        except ChildProcessError:
            os.write(2, b"aftb: sshd has gone\n")
            time.sleep(1)


# ---------------------------------------------------------------- user-space link emulation, where the kernel has no netem
def link_emulator(h, delay, rate, loss):
    """veth port <-> tap on the bridge; keeps virtio headers, so 64 KB GSO frames pass whole and it is fast enough in Python"""
    TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
    t = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(t, TUNSETIFF, struct.pack("16sH22x", tap(h).encode(), 2 | 0x1000 | 0x4000))  # TAP | NO_PI | VNET_HDR
    fcntl.ioctl(t, TUNSETVNETHDRSZ, struct.pack("i", 10))
    fcntl.ioctl(t, TUNSETOFFLOAD, 1 | 2 | 4)  # csum, tso4, tso6
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    s.bind((vport(h), 3))
    s.setblocking(False)
    sh(f"ip link set {tap(h)} up && ip link set {vport(h)} nomaster promisc on && ip link set {tap(h)} master {BR}")
    print("ready", flush=True)
    q, seq, free = [], 0, [0.0, 0.0]
    per = 8.0 / rate if rate else 0.0
    cap = max(0.1, 0.05 + delay)  # the queue holds at most this many seconds at the given rate
    sf = s.fileno()
    while True:
        now = time.monotonic()
        while q and q[0][0] <= now:
            _, _, d, b = heapq.heappop(q)
            try:
                os.write(t, b) if d else s.send(b)
            except (BlockingIOError, OSError):
                pass
        r, _, _ = select.select([t, sf], [], [], max(0.0, q[0][0] - time.monotonic()) if q else None)
        now = time.monotonic()
        for fd in r:
            d = 0 if fd == t else 1
            for _ in range(64):
                try:
                    if d:
                        b, addr = s.recvfrom(70000)
                        if addr[2] == 4:  # PACKET_OUTGOING: our own
                            continue
                    else:
                        b = os.read(t, 70000)
                except BlockingIOError:
                    break
                except OSError:
                    time.sleep(0.05)
                    break
                if loss and random.random() < loss:
                    continue
                at = max(now, free[d])
                if per:
                    if at - now > cap:
                        continue  # tail drop
                    at += (len(b) - 10) * per
                    free[d] = at
                seq += 1
                heapq.heappush(q, (at + delay, seq, d, b))


# ---------------------------------------------------------------- commands
def start_host(st, h):
    hs = st["hosts"][h]
    d = f"{DIR}/{h}"
    os.makedirs(d + "/disk", exist_ok=True)
    if not os.path.exists(d + "/host_key"):
        sh(f"ssh-keygen -q -t ed25519 -N '' -C {h} -f {d}/host_key")
    if not os.path.ismount(d + "/disk"):
        sh(f"mount -t tmpfs -o size={size(hs['cfg']['disk'])},mode=755 aftb-disk {d}/disk")
    log = open(d + "/init.log", "ab")
    env = dict(os.environ, **{MARK: json.dumps(hs["cfg"])})
    outer = subprocess.Popen(["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private",
                              "/usr/bin/python3", os.path.abspath(__file__), "_init", h], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    pid = None
    for _ in range(1000):
        c = open(f"/proc/{outer.pid}/task/{outer.pid}/children").read().split()
        if c and os.readlink(f"/proc/{c[0]}/ns/net") != os.readlink("/proc/self/ns/net"):
            pid = int(c[0])
            break
        time.sleep(0.005)
    if not pid:
        raise SystemExit(f"testbed: {h} did not start: see {d}/init.log")
    hs["outer"], hs["init"] = [outer.pid, start_time(outer.pid)], [pid, start_time(pid)]
    hs["emu"] = None
    save(st)
    hs["cgroups"], notes = limit(h, pid, hs["cfg"]["mem"], hs["cfg"]["cpus"])
    sh(f"ip link del {vport(h)}", check=False)
    sh(f"ip link add {vport(h)} type veth peer name eth0 address {mac_of(h)} netns {pid}")
    sh(f"ip link set {vport(h)} arp off master {BR} up")  # arp off: the machine's own stack never answers on the port itself
    sh(f"ip neigh replace {ip_of(h)} lladdr {mac_of(h)} nud permanent dev {BR}")
    save(st)
    for n in notes:
        print(f"testbed: {h}: {n}", file=sys.stderr)
    return h


def ready(h, timeout=10):
    end = time.time() + timeout
    while time.time() < end:
        try:
            with socket.create_connection((ip_of(h), 22), 1) as s:
                if s.recv(4).startswith(b"SSH"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"testbed: sshd of {h} does not answer: see {DIR}/{h}/init.log")


def cmd_up(a):
    os.makedirs(DIR, mode=0o755, exist_ok=True)
    st = load()
    if not os.path.exists(DIR + "/id"):
        sh(f"ssh-keygen -q -t ed25519 -N '' -C testbed -f {DIR}/id")
    if not os.path.exists(f"/sys/class/net/{BR}"):
        sh(f"ip link add {BR} address 02:af:{ID:02x}:ff:ff:fe type bridge && ip addr add {NET}.254/24 dev {BR} && ip link set {BR} up")
    ft = (glob.glob("/usr/lib/*/faketime/libfaketime.so.1") + [""])[0]
    binds = list(a.bind or [])
    if a.pyenv:
        py = os.path.expanduser("~/.pyenv")  # same path: its interpreters carry it in their run path
        binds.append(f"{py}:{py}")
    new = []
    for i in range(1, a.n + 1):
        h = f"h{i}"
        hs = st["hosts"].setdefault(h, {})
        if alive(hs.get("init")):
            continue
        hs["cfg"] = dict(mem=a.mem, cpus=a.cpus, disk=a.disk, show_mem=a.show_mem, show_cores=a.show_cores, bind=binds, share=a.share or [], sshd=a.sshd or [], skew=0, faketime=ft)
        new.append(start_host(st, h))
    known, conf = "", ""
    for h in sorted(st["hosts"], key=index):
        if os.path.exists(f"{DIR}/{h}/host_key.pub"):
            known += f"{h},{ip_of(h)} {' '.join(open(f'{DIR}/{h}/host_key.pub').read().split()[:2])}\n"
        conf += f"Host {h}\n  HostName {ip_of(h)}\n"
    open(f"{DIR}/known_hosts", "w").write(known)
    open(f"{DIR}/ssh_config", "w").write(conf + f"Host *\n  User farm\n  IdentityFile {DIR}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {DIR}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n")
    for h in new:
        ready(h)
    cmd_status(a)


def host(st, h):
    if h not in st["hosts"]:
        raise SystemExit(f"testbed: no such host {h}")
    return st["hosts"][h]


def cmd_down(a):
    st = load()
    for h, hs in st["hosts"].items():
        stop_host(h, hs)
        for _ in range(100):
            if not os.path.ismount(f"{DIR}/{h}/disk") or sh(f"umount {DIR}/{h}/disk", check=False).returncode == 0:
                break
            time.sleep(0.05)
    if os.path.exists(f"/sys/class/net/{BR}"):
        sh(f"ip link del {BR}", check=False)
    if not any(os.path.ismount(f"{DIR}/{h}/disk") for h in st["hosts"]):
        shutil.rmtree(DIR, ignore_errors=True)


def stop_host(h, hs):
    kill(hs.get("emu"))
    kill(hs.get("init"))  # pid 1 of the namespace: the kernel kills all the rest
    kill(hs.get("outer"))
    sh(f"ip link del {vport(h)}", check=False)
    hs["emu"] = None
    for g in hs.get("cgroups", []):
        for _ in range(50):
            try:
                os.rmdir(g)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


def cmd_status(a):
    st = load()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for h in sorted(st["hosts"], key=index):
        hs = st["hosts"][h]
        up = alive(hs.get("init"))
        try:
            master = open(f"/sys/class/net/{port(h)}/brport/state").read().strip() == "3"
        except OSError:
            master = False
        net = "cut" if up and not master else ("shaped " + hs["shape"] if hs.get("shape") and alive(hs.get("emu")) else "plain") if up else "-"
        print(f"{h} {ip_of(h)} {'up' if up else 'down'} init-pid {hs['init'][0] if up else '-'} net {net} disk {hs['cfg']['disk']} mem {hs['cfg']['mem'] or 'unlimited'} cpus {hs['cfg']['cpus'] or 'all'}")
    if st["hosts"]:
        print(f"ssh -F {DIR}/ssh_config h1    # user farm; -l root")


def port(h):
    return tap(h) if os.path.exists(f"/sys/class/net/{tap(h)}") else vport(h)


def cmd_cut(a):
    host(load(), a.host)
    sh(f"ip link set {port(a.host)} down" if a.hard else f"bridge link set dev {port(a.host)} state 0")


def cmd_heal(a):
    host(load(), a.host)
    sh(f"ip link set {port(a.host)} up")
    sh(f"bridge link set dev {port(a.host)} state 3")


def cmd_crash(a):
    st = load()
    host(st, a.host)
    sh(f"bridge link set dev {port(a.host)} state 0", check=False)  # cable first: a dead machine sends no FIN
    stop_host(a.host, host(st, a.host))
    save(st)


def cmd_boot(a):
    st = load()
    hs = host(st, a.host)
    if alive(hs.get("init")):
        return
    start_host(st, a.host)
    ready(a.host)


def pids_in(hs):
    ns = os.readlink(f"/proc/{hs['init'][0]}/ns/pid")
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                if os.readlink(f"/proc/{p}/ns/pid") == ns:
                    yield int(p)
            except OSError:
                pass


def cmd_freeze(a):
    hs = host(load(), a.host)
    if alive(hs["init"]):
        seen = set()
        while True:  # again until no new process has slipped through
            now = set(pids_in(hs)) - seen
            if not now:
                break
            for p in now:
                try:
                    os.kill(p, signal.SIGSTOP)
                except ProcessLookupError:
                    pass
            seen |= now


def cmd_thaw(a):
    hs = host(load(), a.host)
    if alive(hs["init"]):
        for p in pids_in(hs):
            os.kill(p, signal.SIGCONT)


def cmd_shape(a):
    st = load()
    hs = host(st, a.host)
    cmd_unshape(a, quiet=True)
    st = load()
    hs = host(st, a.host)
    rtt = float(re.fullmatch(r"([\d.]+)ms", a.rtt)[1]) / 1000 if a.rtt != "-" else 0.0
    m = re.fullmatch(r"([\d.]+)([kmg])bit", a.rate) if a.rate != "-" else None
    rate = float(m[1]) * {"k": 1e3, "m": 1e6, "g": 1e9}[m[2]] if m else 0.0
    loss = float(a.loss.rstrip("%")) / 100 if a.loss else 0.0
    opt = f"delay {rtt / 2 * 1e6:.0f}us" + (f" rate {int(rate)}bit" if rate else "") + (f" loss {loss * 100}%" if loss else "") + " limit 100000"
    r = sh(f"tc qdisc replace dev {vport(a.host)} root netem {opt}", check=False)
    if r.returncode == 0:
        sh(f"nsenter -t {hs['init'][0]} -n tc qdisc replace dev eth0 root netem {opt}")
        hs["shape"], hs["emu"] = f"{a.rtt} {a.rate} {a.loss or ''} (netem)".strip(), hs["init"]
    else:
        p = subprocess.Popen([sys.executable, os.path.abspath(__file__), "_emu", a.host, str(rtt / 2), str(rate), str(loss)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=open(f"{DIR}/{a.host}/emu.log", "wb"), start_new_session=True)
        if not p.stdout.readline():
            raise SystemExit(f"testbed: link emulator failed: see {DIR}/{a.host}/emu.log")
        hs["shape"], hs["emu"] = f"{a.rtt} {a.rate} {a.loss or ''} (user space)", [p.pid, start_time(p.pid)]
    save(st)


def cmd_unshape(a, quiet=False):
    st = load()
    hs = host(st, a.host)
    if hs.get("emu") and hs["emu"] != hs.get("init"):
        kill(hs["emu"])
    sh(f"tc qdisc del dev {vport(a.host)} root", check=False)
    if alive(hs.get("init")):
        sh(f"nsenter -t {hs['init'][0]} -n tc qdisc del dev eth0 root", check=False)
        sh(f"ip link set {vport(a.host)} promisc off master {BR}")
    hs["emu"], hs["shape"] = None, None
    save(st)


def cmd_fill(a):
    host(load(), a.host)
    d = f"{DIR}/{a.host}/disk"
    v = os.statvfs(d)
    n = v.f_bavail * v.f_frsize - size(a.left)
    if n > 0:
        fd = os.open(d + "/ballast", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(fd, os.fstat(fd).st_size, n)
        os.close(fd)


def cmd_unfill(a):
    p = f"{DIR}/{a.host}/disk/ballast"
    os.path.exists(p) and os.unlink(p)


def cmd_skew(a):
    st = load()
    hs = host(st, a.host)
    if not hs["cfg"]["faketime"]:
        hs["cfg"]["faketime"] = (glob.glob("/usr/lib/*/faketime/libfaketime.so.1") + [""])[0]
        if not hs["cfg"]["faketime"]:
            raise SystemExit("testbed: skew needs libfaketime (apt-get install libfaketime)")
    hs["cfg"]["skew"] = int(float(a.seconds))
    save(st)
    line = "SetEnv LD_PRELOAD=%s FAKETIME=%+ds" % (hs["cfg"]["faketime"], hs["cfg"]["skew"]) if hs["cfg"]["skew"] else ""
    inside(hs, ["/bin/sh", "-c", f"sed -i '/^SetEnv LD_PRELOAD/d' /etc/ssh/aftb_sshd_config; echo '{line}' >>/etc/ssh/aftb_sshd_config; kill -HUP $(cat /run/sshd.pid)"], check=True)
    time.sleep(0.2)
    ready(a.host)


def cmd_wipe(a):
    st = load()
    hs = host(st, a.host)
    if alive(hs.get("init")):
        raise SystemExit("testbed: crash it first")
    sh(f"umount {DIR}/{a.host}/disk", check=False)


def inside(hs, argv, check=False):
    pid = str(hs["init"][0])
    return subprocess.run(["nsenter", "-t", pid, "-m", "-u", "-i", "-n", "-p", "-r", "--wdns=/", "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root"] + argv, check=check)


def cmd_exec(a):
    sys.exit(inside(host(load(), a.host), a.cmd).returncode)


def cmd_ssh(a):
    os.execvp("ssh", ["ssh", "-F", f"{DIR}/ssh_config", a.host] + a.cmd)


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "_init":
        return host_init(sys.argv[2])
    if len(sys.argv) > 2 and sys.argv[1] == "_emu":
        return link_emulator(sys.argv[2], *map(float, sys.argv[3:6]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    s = p.add_subparsers(dest="verb", required=True)
    u = s.add_parser("up")
    u.add_argument("n", type=int)
    for o, dflt in (("--mem", None), ("--cpus", None), ("--disk", "2g"), ("--show-mem", None), ("--show-cores", None)):
        u.add_argument(o, default=dflt)
    u.add_argument("--pyenv", action="store_true", help="show ~/.pyenv read-only at its own path")
    u.add_argument("--bind", action="append", help="SRC:DST, read-only")
    u.add_argument("--share", action="append", help="SRC:DST, as a file system that several hosts have")
    u.add_argument("--sshd", action="append", help="a line for sshd_config")
    for v in ("down", "status"):
        s.add_parser(v)
    for v in ("heal", "crash", "boot", "freeze", "thaw", "unshape", "unfill", "wipe"):
        s.add_parser(v).add_argument("host")
    c = s.add_parser("cut")
    c.add_argument("host"), c.add_argument("--hard", action="store_true")
    c = s.add_parser("shape")
    c.add_argument("host"), c.add_argument("rtt"), c.add_argument("rate"), c.add_argument("loss", nargs="?")
    c = s.add_parser("fill")
    c.add_argument("host"), c.add_argument("left", nargs="?", default="0")
    c = s.add_parser("skew")
    c.add_argument("host"), c.add_argument("seconds")
    for v in ("exec", "ssh"):
        c = s.add_parser(v)
        c.add_argument("host"), c.add_argument("cmd", nargs=argparse.REMAINDER)
    a = p.parse_args()
    if os.geteuid() and a.verb != "ssh":
        raise SystemExit("testbed: needs root")
    if a.verb not in ("ssh", "exec", "status"):  # one change at a time
        os.makedirs(DIR, exist_ok=True)
        lock = open(f"/tmp/.afarm-testbed-{ID}.lock", "w")
        os.set_inheritable(lock.fileno(), False)
        fcntl.flock(lock, fcntl.LOCK_EX)
    globals()["cmd_" + a.verb](a)


if __name__ == "__main__":
    main()
