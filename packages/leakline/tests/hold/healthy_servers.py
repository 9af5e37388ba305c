"""Healthy programs: servers from Debian's packages, each started with settings of its own and given work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from healthy_scene import SOURCES, Scene
from recorded_programs import NGINX, POSTGRES, free_port

DNS_QUERY = r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01"
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


def redis(scene: Scene) -> dict[str, int]:
    pid = scene.serve("redis-server", "--port", str(scene.port), "--save", "5 1", "--dir", str(scene.folder))
    scene.repeat(f"redis-benchmark -p {scene.port} -q -n 3000 -c 50 -t set,get,lpush >/dev/null")
    scene.requests(r"PING\r\n")
    return {"redis-server": pid}


def nginx(scene: Scene) -> dict[str, int]:
    (scene.folder / "pages").mkdir()
    (scene.folder / "pages/index.html").write_text("a page\n" * 2000)
    pid = scene.serve(
        "nginx", "-c", scene.write("nginx.conf", NGINX.replace("worker_processes 2", "worker_processes 1"))
    )
    scene.repeat(f"ab -q -n 500 -c 20 http://127.0.0.1:{scene.port}/index.html >/dev/null")
    scene.requests()
    return {"nginx, its worker": scene.child(pid), "nginx, its master": pid}


def postgres(scene: Scene) -> dict[str, int]:
    data = scene.folder / "data"
    data.mkdir()
    user = AS_POSTGRES if os.geteuid() == 0 else ()
    if user:
        shutil.chown(data, "postgres", "postgres")
    made = [*user, str(POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"]
    subprocess.run(made, stdout=subprocess.DEVNULL, check=True)
    options = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
    pid = scene.serve(*user, str(POSTGRES / "postgres"), "-D", str(data), "-p", str(scene.port), *options)
    to = f"-h 127.0.0.1 -p {scene.port} -U postgres postgres"
    scene.repeat(
        f"{{ test -e {scene.folder}/filled || {POSTGRES}/pgbench -q -i {to}; }} && touch {scene.folder}/filled && "
        f"{POSTGRES}/pgbench -n -C -c 4 -t 20 {to} >/dev/null"
    )
    return {"PostgreSQL": pid}


def memcached(scene: Scene) -> dict[str, int]:
    pid = scene.serve("memcached", "-l", "127.0.0.1", "-p", str(scene.port), "-u", "root")
    scene.requests(r"set k 0 60 5\r\nhello\r\nget k\r\n")
    return {"memcached": pid}


def haproxy(scene: Scene) -> dict[str, int]:
    behind = free_port()
    scene.python("asyncio_server.py", str(behind))
    settings = scene.write(
        "haproxy.cfg",
        f"""
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen all
  bind 127.0.0.1:PORT
  server one 127.0.0.1:{behind} check inter 500ms
""",
    )
    pid = scene.serve("haproxy", "-db", "-f", settings)
    scene.requests()
    return {"haproxy": pid}


def mosquitto(scene: Scene) -> dict[str, int]:
    settings = scene.write("mosquitto.conf", "listener PORT 127.0.0.1\nallow_anonymous true\nuser root\n")
    pid = scene.serve("mosquitto", "-c", settings)
    scene.repeat(f"seq 50 | mosquitto_pub -p {scene.port} -t topic -l -q 1", 0.2)
    scene.load("sh", "-c", f"while :; do mosquitto_sub -p {scene.port} -t topic -C 20 | wc -l; sleep 0.3; done")
    return {"mosquitto": pid}


def sshd(scene: Scene) -> dict[str, int]:
    key = scene.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = "Port PORT\nListenAddress 127.0.0.1\nHostKey FOLDER/key\nPidFile FOLDER/pid\nUsePAM no\nMaxStartups 50\n"
    pid = scene.serve("/usr/sbin/sshd", "-D", "-e", "-f", scene.write("sshd.conf", settings))
    scene.repeat(f"ssh-keyscan -p {scene.port} 127.0.0.1 >/dev/null 2>&1", 0.1)
    return {"sshd": pid}


def rsync(scene: Scene) -> dict[str, int]:
    shutil.copytree(SOURCES, scene.folder / "files")
    text = "port = PORT\naddress = 127.0.0.1\nuse chroot = no\npid file = FOLDER/pid\n"
    text += "[files]\n  path = FOLDER/files\n  uid = root\n"
    pid = scene.serve("rsync", "--daemon", "--no-detach", f"--config={scene.write('rsync.conf', text)}")
    scene.repeat(f"rsync -a --delete rsync://127.0.0.1:{scene.port}/files/ {scene.folder}/copy", 0.1)
    return {"rsync daemon": pid}


def dnsmasq(scene: Scene) -> dict[str, int]:
    words = ("--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts", "--address=/test/10.0.0.1")
    files = (f"--pid-file={scene.folder}/pid", "--conf-file=/dev/null")
    pid = scene.serve("dnsmasq", "--keep-in-foreground", "--user=root", f"--port={scene.port}", *words, *files)
    scene.requests(DNS_QUERY, "udp")
    scene.requests(rf"\x00\x18{DNS_QUERY}")
    return {"dnsmasq": pid}


def etcd(scene: Scene) -> dict[str, int]:
    client, peer = f"http://127.0.0.1:{scene.port}", f"http://127.0.0.1:{free_port()}"
    words = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    pid = scene.serve("etcd", "--data-dir", str(scene.folder / "data"), *words)
    ctl = f"ETCDCTL_API=3 etcdctl --endpoints {client}"
    scene.repeat(f"{ctl} put k v >/dev/null && {ctl} get k >/dev/null", 0.1)
    return {"etcd": pid}


def mariadb(scene: Scene) -> dict[str, int]:
    data, local = scene.folder / "data", scene.folder / "socket"
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--auth-root-authentication-method=normal",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    words = (f"--datadir={data}", f"--socket={local}", f"--pid-file={scene.folder}/pid", "--bind-address=127.0.0.1")
    pid = scene.serve("mariadbd", "--no-defaults", "--user=root", f"--port={scene.port}", *words)
    slap = "mariadb-slap --no-defaults -u root -a --auto-generate-sql-load-type=mixed --number-of-queries=200 -c 10"
    scene.repeat(f"{slap} --detach=5 -h 127.0.0.1 -P {scene.port} >/dev/null")
    return {"MariaDB": pid}


def beanstalkd(scene: Scene) -> dict[str, int]:
    pid = scene.serve("beanstalkd", "-l", "127.0.0.1", "-p", str(scene.port))
    scene.requests(r"put 0 0 60 5\r\nhello\r\nreserve\r\n")
    return {"beanstalkd": pid}


def squid(scene: Scene) -> dict[str, int]:
    behind = free_port()
    scene.python("asyncio_server.py", str(behind))
    if os.geteuid() == 0:
        shutil.chown(scene.folder, "proxy", "proxy")
    settings = scene.write(
        "squid.conf",
        "http_port 127.0.0.1:PORT\nhttp_access allow all\ncache deny all\npid_filename FOLDER/pid\naccess_log none\n"
        "cache_log FOLDER/cache.log\ncoredump_dir FOLDER\npinger_enable off\nshutdown_lifetime 1 seconds\n",
    )
    pid = scene.serve("squid", "-N", "-f", settings)
    scene.requests(rf"GET http://127.0.0.1:{behind}/ HTTP/1.0\r\n\r\n")
    return {"squid": pid}


def lighttpd(scene: Scene) -> dict[str, int]:
    settings = scene.write(
        "lighttpd.conf",
        f'server.document-root = "{SOURCES}"\nserver.port = PORT\nserver.bind = "127.0.0.1"\n'
        'index-file.names = ( "page.html" )\n',
    )
    pid = scene.serve("lighttpd", "-D", "-f", settings)
    scene.requests()
    return {"lighttpd": pid}


def apache(scene: Scene) -> dict[str, int]:
    modules = "/usr/lib/apache2/modules"
    settings = scene.write(
        "apache.conf",
        f"ServerRoot FOLDER\nServerName test\nPidFile FOLDER/pid\nListen 127.0.0.1:PORT\nErrorLog FOLDER/errors\n"
        f"LoadModule mpm_event_module {modules}/mod_mpm_event.so\n"
        f"LoadModule authz_core_module {modules}/mod_authz_core.so\n"
        f"User www-data\nGroup www-data\nStartServers 1\nMinSpareThreads 5\nThreadsPerChild 25\nMaxRequestWorkers 50\n"
        f"DefaultRuntimeDir FOLDER\nDocumentRoot {SOURCES}\n<Directory />\n Require all granted\n</Directory>\n",
    )
    pid = scene.serve("apache2", "-D", "FOREGROUND", "-f", settings)
    scene.repeat(f"ab -q -n 300 -c 10 http://127.0.0.1:{scene.port}/page.html >/dev/null")
    scene.requests()
    return {"Apache, a worker": scene.child(pid), "Apache": pid}
