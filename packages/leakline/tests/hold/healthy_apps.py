"""Healthy programs: virtual machines, a browser, Python applications, a shell, datacenter, each given work."""

from __future__ import annotations

import sys
from pathlib import Path

from healthy_scene import SOURCES, Scene
from recorded_programs import free_port

JAR = Path("/usr/share/java/zookeeper.jar")
PYTHON_OF_DEBIAN = "/usr/bin/python3"
BROWSER = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def zookeeper(scene: Scene) -> dict[str, int]:
    settings = scene.write(
        "zoo.cfg", "tickTime=500\ndataDir=FOLDER/data\nclientPort=PORT\nadmin.enableServer=false\nmaxClientCnxns=0\n"
    )
    classes = f"{JAR}:{JAR.with_name('slf4j-simple.jar')}"
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    pid = scene.serve(
        "java", "-Xmx96m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes, main, settings
    )
    scene.load(sys.executable, str(SOURCES / "znodes.py"), str(scene.port))
    return {"ZooKeeper": pid}


def java(scene: Scene) -> dict[str, int]:
    pid = scene.serve("java", "-Xmx96m", str(SOURCES / "Server.java"), str(scene.port))
    scene.requests()
    return {"a JVM (HttpServer)": pid}


def node(scene: Scene) -> dict[str, int]:
    pid = scene.serve("node", str(SOURCES / "server.js"), str(scene.port))
    scene.requests()
    return {"Node (http)": pid}


def chromium(scene: Scene) -> dict[str, int]:
    scene.python("pages.py")
    pid = scene.start(
        "chromium",
        *BROWSER,
        f"--user-data-dir={scene.folder}/profile",
        "--remote-debugging-port=0",  # without one, a headless browser shows a page and ends
        f"http://127.0.0.1:{scene.port}/",
    )
    return {"Chromium": pid}


def gunicorn(scene: Scene) -> dict[str, int]:
    words = ("-b", f"127.0.0.1:{scene.port}", "-w", "1", "--threads", "4", "--log-level", "warning")
    pid = scene.serve("gunicorn", *words, "wsgi:app", cwd=SOURCES)
    scene.requests()
    return {"gunicorn, its worker": scene.child(pid), "gunicorn": pid}


def uvicorn(scene: Scene) -> dict[str, int]:
    words = ("--port", str(scene.port), "--log-level", "warning")
    pid = scene.serve("uvicorn", *words, "asgi:app", cwd=SOURCES)
    scene.requests()
    return {"uvicorn": pid}


def celery(scene: Scene) -> dict[str, int]:
    scene.serve("redis-server", "--port", str(scene.port), "--save", "", "--dir", str(scene.folder))
    environment = {"BROKER": f"redis://127.0.0.1:{scene.port}/0", "PYTHONPATH": str(SOURCES), "C_FORCE_ROOT": "1"}
    worker = ("-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "INFO")
    pid = scene.start(PYTHON_OF_DEBIAN, *worker, environment=environment)
    scene.until_it_says("ready.")
    scene.load(PYTHON_OF_DEBIAN, str(SOURCES / "tasks.py"), "load", environment=environment)
    return {"Celery worker": pid}


def pipeline(scene: Scene) -> dict[str, int]:
    script = "while :; do seq 3000 | sort -R | uniq -c | head -3 | wc -l; sleep 0.05; done"
    return {"bash, a pipeline": scene.start("bash", "-c", script)}


def asyncio(scene: Scene) -> dict[str, int]:
    pid = scene.python("asyncio_server.py")
    scene.requests()
    return {"asyncio server": pid}


def threads(scene: Scene) -> dict[str, int]:
    pid = scene.python("thread_server.py")
    scene.requests()
    return {"thread pool server": pid}


def sqlite(scene: Scene) -> dict[str, int]:
    pid = scene.python("sqlite_app.py", str(scene.port), str(scene.folder / "visits.db"))
    scene.requests()
    return {"SQLite web app": pid}


def datacenter(scene: Scene) -> dict[str, int]:
    address = f"tcp://127.0.0.1:{scene.port}"
    environment = {"DATACENTER_BROKER": address, "DATACENTER_RUNTIME_DIR": str(scene.folder)}
    command = (sys.executable, "-m", "datacenter")
    broker = scene.serve(*command, "up", "--listen", address, environment=environment)
    served = (*command, "serve", "datacenter.demo.greeter:greeter", "--listen", f"tcp://127.0.0.1:{free_port()}")
    service = scene.start(*served, environment=environment)
    scene.until_it_says("serving ")
    scene.load(sys.executable, str(SOURCES / "calls.py"), environment=environment)
    short = " ".join((*command, "call", "greeter.hello", "Bob"))
    scene.load("sh", "-c", f"while :; do {short} >/dev/null && echo 1; sleep 0.2; done", environment=environment)
    return {"datacenter broker": broker, "datacenter service": service, "datacenter client": scene.loads[0].pid}
