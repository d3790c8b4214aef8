"""A clock that jumps, for LiteLLM alone: the workstation's own is the surrounding machine's.

A library in front of the system's answers what time it is. It leaves the clock alone that only ever
goes forward, as a jump of the real one does.
"""

_FOLDER = "/run/clock"
_LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_OVERRIDE = f"""
services:
  litellm:
    environment:
      LD_PRELOAD: /run/clock/library.so
      FAKETIME_TIMESTAMP_FILE: /run/clock/offset
      FAKETIME_CACHE_DURATION: "1"
      FAKETIME_DONT_FAKE_MONOTONIC: "1"
    volumes: ["{_FOLDER}:/run/clock:ro"]
"""
_UP = "cd /opt/gatehouse/current && docker compose -f compose.yaml {} up -d --no-deps litellm"
BEFORE = f"""set -e
dpkg -s libfaketime >/dev/null 2>&1 || {{ apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends libfaketime; }}
mkdir -p {_FOLDER} && cp {_LIBRARY} {_FOLDER}/library.so && echo +0 >{_FOLDER}/offset
cat >{_FOLDER}/compose.yaml <<'END'{_OVERRIDE}END
{_UP.format(f"-f {_FOLDER}/compose.yaml")}"""
AFTER = f"{_UP.format('')}\nrm -rf {_FOLDER}"
# What LiteLLM itself takes the time to be, from an answer's head.
_THERE = "$(date -d \"$(curl -sI 127.0.0.1:4000/health/liveliness | sed -n 's/^date: //Ip')\" +%s)"
_TOLERANCE_SECONDS = 60


def jump(hours: int) -> str:
    """Give the commands that set LiteLLM's clock so far ahead; they fail where it did not go."""
    ahead = hours * 3600
    return f"""echo +{ahead} >{_FOLDER}/offset
for attempt in $(seq 10); do
    sleep 1
    late=$(( {_THERE} - $(date +%s) - {ahead} ))
    [ ${{late#-}} -lt {_TOLERANCE_SECONDS} ] && exit 0
done
exit 1"""
