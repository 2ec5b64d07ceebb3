#!/usr/bin/env bash
# Builds the Dockerfile and runs the image as docker-compose.yml does, without Docker and without a registry: buildah,
# and for the official Python image a stand-in of Debian's own packages, under the same name and with the same paths.
#
#   prove_image.sh [FOLDER]       FOLDER is where it works; a new one under /tmp, removed at the end, where none is given
#
# As root on Debian, with `apt-get install buildah debootstrap`; some minutes, and a gigabyte of room. What is proven:
# every step of the Dockerfile; what it adds is under 70 MB, so that the image is under 200 on a base of 130; as user
# 10001, without capabilities, on a read-only root with a volume on /data: the router becomes ready by the image's own
# health check, a node and the agent join, a request is answered, the records agree, and SIGTERM ends all of it in order.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${1:-$(mktemp -d /tmp/herd-image.XXXXXX)}
[ $# -gt 0 ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
base=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' "$root/Dockerfile")
builder() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
size_of() { du --apparent-size -sBMB "$1" | cut -dM -f1; }  # millions of bytes, as Docker counts
limit=70  # MB in /opt/herd

if [ ! -d "$work/base" ]; then
  echo "prove_image: making a stand-in for $base"
  debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm "$work/base" >"$work/base.log" 2>&1 ||
    { tail -n 5 "$work/base.log"; exit 1; }
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  ln -sf /usr/bin/python3.11 "$work/base/usr/local/bin/python"
  # pip is to trust whom this machine trusts.
  cp -L /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/ca-certificates.crt"
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/base/etc/pip.conf"
  stand_in=$(builder from scratch)
  builder copy -q "$stand_in" "$work/base" / >/dev/null
  builder config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$stand_in"
  builder commit -q "$stand_in" "docker.io/library/$base" >/dev/null
  builder rm "$stand_in" >/dev/null
fi

echo "prove_image: building"
builder build --isolation chroot --format docker --layers=false -t herd-proof "$root" >"$work/build.log" 2>&1 ||
  { tail -n 30 "$work/build.log"; exit 1; }
container=$(builder from herd-proof)
image=$(builder mount "$container")
echo "prove_image: /opt/herd is $(size_of "$image/opt/herd") MB, $(tar -C "$image" -cz opt | wc -c | numfmt --to=si)B" \
  "compressed, on a stand-in of $(size_of "$work/base") MB"
[ "$(size_of "$image/opt/herd")" -lt "$limit" ] || { echo "prove_image: /opt/herd is not under $limit MB"; exit 1; }
builder inspect --type image herd-proof >"$work/image.json"

cat >"$work/inside.sh" <<'INSIDE'
set -euo pipefail
image=$1 work=$2
ip link set lo up
mkdir -p "$work/root"
mount --bind "$image" "$work/root"
mount -o remount,ro,bind "$work/root"
mount -t tmpfs tmpfs "$work/root/tmp" -o mode=1777
mount -t proc proc "$work/root/proc"
mount --bind /dev "$work/root/dev"
rm -rf "$work/volume"
cp -a "$image/data" "$work/volume"  # as Docker fills an empty volume
mount --bind "$work/volume" "$work/root/data"

as_configured() {  # the image's user and environment, and what the compose file takes away
  exec chroot "$work/root" setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs \
    env -i "${environment[@]}" "$@"
}
read_config() { python3 -c "import json; c = json.load(open('$work/image.json'))['Docker']['config']; print(*$1, sep='\n')"; }
mapfile -t environment < <(read_config 'c["Env"]')
mapfile -t health < <(read_config 'c["Healthcheck"]["Test"][1:]')
mapfile -t command < <(read_config 'c["Cmd"]')
[ "$(read_config '[c["User"]]')" = 10001:10001 ]
soon() { for _ in $(seq 120); do (as_configured "$@") >/dev/null 2>&1 && return; sleep 0.5; done; (as_configured "$@"); }

! (as_configured "${health[@]}") 2>/dev/null || { echo "the health check passes without a router"; exit 1; }
! (as_configured touch /opt/herd/x /home/herd/x) 2>/dev/null || { echo "the root is not read-only"; exit 1; }
began=$(date +%s%N)
(as_configured "${command[@]}") >"$work/router.txt" 2>&1 & router=$!
soon "${health[@]}"
echo "prove_image: ready after $((($(date +%s%N) - began) / 1000000)) ms"
(as_configured python -m herd.sim --node-id=engine --port=11434 --model=llama3.2:3b=2.0) >"$work/sim.txt" 2>&1 & sim=$!
(as_configured herd-node --node-id=n1 --router-url=http://127.0.0.1:11435 --data-dir=/tmp/agent) >"$work/agent.txt" 2>&1 &
agent=$!
soon sh -c 'herd status | grep -q "n1 .*online"'
(as_configured python -c '
import json, urllib.request as u
body = json.dumps({"model": "llama3.2:3b", "messages": [{"role": "user", "content": "Hi"}]}).encode()
with u.urlopen("http://127.0.0.1:11435/v1/chat/completions", body) as answer:
    assert answer.headers["x-herd-node"] == "n1" and json.load(answer)["choices"], answer
')
soon herd audit
(as_configured herd status)
for process in "$agent" "$sim" "$router"; do
  kill -TERM "$process"
  wait "$process" || { echo "prove_image: it ended with $?"; exit 1; }
done
stat -c 'prove_image: %n belongs to %u, mode %a' "$work/volume" "$work/volume/latency.db"
INSIDE
unshare --net --mount bash "$work/inside.sh" "$image" "$work"
echo "prove_image: all of it works"
