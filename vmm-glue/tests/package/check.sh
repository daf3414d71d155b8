# What boot.sh has systemd run: installs, starts, breaks, upgrades and removes the package.
set -euxo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
examples=/usr/share/doc/livepath/examples
file=/etc/livepath/livepathd.toml
units=/usr/lib/systemd/system

until_it() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}
fails() { if "$@"; then return 1; fi; }
pid() { systemctl show --property MainPID --value livepathd; }
serves_as_another() { [ "$(pid)" != "$1" ] && livepath status; }

ip link set lo up
dpkg --install /run/check/livepath.deb
dpkg --verify livepath
dpkg --contents /run/check/livepath.deb >/run/check/contents
grep -q /man1/livepath-status.1 /run/check/contents
for program in livepath livepathd livepath-controller livepath-responder; do
    grep -q "/man1/$program\.1" /run/check/contents
    grep -q "/bash-completion/completions/$program$" /run/check/contents
    grep -q "/vendor-completions/_$program$" /run/check/contents
    grep -q "/vendor_completions.d/$program.fish$" /run/check/contents
done
# Nothing in the programs but what runs; one that runs without a C library too; changelogs that Debian's tools find.
shows() { readelf --wide --sections --program-headers "/usr/bin/$1" | grep "$2" >/dev/null; }
for program in livepath livepathd livepath-controller livepath-responder; do
    fails shows $program '\.debug_line'
done
shows livepathd INTERP
fails shows livepath-responder INTERP
gzip -dc /usr/share/doc/livepath/changelog.gz | grep -q '^# Changelog'
version=$(dpkg-query --show --showformat '${Version}' livepath)
gzip -dc /usr/share/doc/livepath/changelog.Debian.gz | grep -qF "livepath ($version) "
for unit in livepathd livepath-controller; do
    systemd-analyze verify $units/$unit.service
    systemd-analyze security --offline=true --threshold=20 $units/$unit.service
    fails systemctl is-active $unit
done
for example in $examples/example*.toml; do
    install -d /run/livepath
    livepathd --config "$example" --check
done
rmdir /run/livepath

# No file, no daemon; then one that is good.
systemctl start livepathd
fails systemctl is-active livepathd
install -D -m 644 $examples/example-minimal.toml $file
install -d -o livepath -g livepath -m 750 /run/livepath
runuser -u livepath -- livepathd --config $file --check
systemctl start livepathd livepath-controller
until_it livepath status
[ "$(stat -c %U:%G:%a /run/livepath/vm5.sock)" = livepath:livepath:660 ]
[ "$(stat -c %U "/proc/$(pid)")" = livepath ]
grep -P '^CapBnd:\t0+$' "/proc/$(pid)/status"
grep -P '^Seccomp:\t2$' "/proc/$(pid)/status"
# The first line of the controller's answer to this request, with these headers.
answer() {
    exec 3<>/dev/tcp/127.0.0.1/8300 || return
    printf '%s HTTP/1.0\r\n%scontent-length: %d\r\n\r\n%s' "$1" "${3-}" ${#2} "$2" >&3
    head -n 1 <&3
}
controller_answers() { answer 'GET /v1/status' '' | grep -q '^HTTP/1.. 200'; }
until_it controller_answers

# With a token that only root can read, it listens to others; changes show the token.
(umask 077 && head -c 32 /dev/urandom | base64 >/etc/livepath/token)
echo LISTEN=0.0.0.0:8300 >/etc/default/livepath-controller
systemctl restart livepath-controller
gave_up() { [ "$(systemctl show --property ExecMainStatus --value livepath-controller)" = 2 ]; }
until_it gave_up
install -D -m 644 $examples/controller-token.conf /etc/systemd/system/livepath-controller.service.d/token.conf
systemctl daemon-reload
systemctl restart livepath-controller
until_it controller_answers
[ "$(stat -c %U:%a /etc/livepath/token)" = root:600 ]
chain='{"paths": [{"spi": 1, "hops": ["svm1"]}]}'
bearer="authorization: Bearer $(cat /etc/livepath/token)"$'\r\n'
answer 'PUT /v1/chains/inspect' "$chain" | grep '^HTTP/1.. 401'
answer 'PUT /v1/chains/inspect' "$chain" "$bearer" | grep '^HTTP/1.. 200'
fails livepath service fail svm1 --controller http://127.0.0.1:8300
livepath service fail svm1 --controller http://127.0.0.1:8300 --token-file /etc/livepath/token

# A reload takes a good file, which is in force when it ends.
first=$(pid)
sed -i 's/priority = 100/priority = 50/' $file
systemctl reload livepathd
livepath events | grep 'configuration read again'
# A bad one fails it, and one that the running daemon refuses; nothing changes, and whoever asks is told why.
reload() { runuser -u livepath -- livepath reload --config $file; }
refused() {
    fails systemctl reload livepathd
    fails reload 2>/run/check/refusal
    grep -q "$1" /run/check/refusal
    [ "$(pid)" = "$first" ]
}
echo 'nonsense = 1' >>$file
refused 'nonsense = 1: there is no such key'
sed -i '$d' $file
cp $file /run/check/good
sed -i 's/^name = "host-a"/name = "host-b"/' $file
refused 'has another name; these cannot change while livepathd runs: restart it'
cp /run/check/good $file
sed -i '/^\[host\]/a admin = "/run/livepath/elsewhere.sock"' $file
refused 'has another admin;'
livepath status | grep -q 'NOT taken'
cp /run/check/good $file
reload
fails grep -q 'NOT taken' <(livepath status)

# Killed, it is back by itself; so it is after an upgrade.
kill -KILL "$first"
until_it serves_as_another "$first"
second=$(pid)
dpkg --install /run/check/livepath.deb
until_it serves_as_another "$second"

dpkg --remove livepath
dpkg --status livepath | grep -q '^Status: deinstall ok config-files'
for unit in livepathd livepath-controller; do fails systemctl is-active $unit; done
for gone in /usr/bin/livepathd /usr/bin/livepath $units/livepathd.service /usr/share/doc/livepath /run/livepath; do
    [ ! -e $gone ]
done
[ -e $file ]
[ -e /var/lib/private/livepath-controller/controller.redb ]
dpkg --purge livepath
[ ! -e /var/lib/private/livepath-controller ]
