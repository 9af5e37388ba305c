"""The tasks of a Celery worker, and what gives it some: `python tasks.py load` sends batches for ever."""

import os
import subprocess
import sys
import time

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])


@app.task
def work(number: int) -> str:
    with open("/etc/passwd") as file:
        text = file.read(100)
    if number % 10 == 0:
        text += subprocess.run(["/bin/echo", str(number)], stdout=subprocess.PIPE, check=True, text=True).stdout
    return text


if __name__ == "__main__" and sys.argv[1:] == ["load"]:
    batch = 0
    while True:
        batch += 1
        results = [work.delay(number) for number in range(batch % 3 * 15 + 5)]
        for result in results:
            result.get(timeout=60)
        print(len(results), flush=True)
        time.sleep(0.3)
