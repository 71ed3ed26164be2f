# Makes everything on the host that the faults break. Runs before the package is installed.
set -e
umask 022
mkdir -p /run/lab /etc/lab /usr/local/lib/lab /srv/files/queue /srv/hung /srv/ext4
chmod 755 /run/lab /etc/lab /usr/local/lib/lab
lab=/usr/local/lib/lab
# In a container the checks leave fstab and disks alone. Here they must do what they do on a host.
rm -f /run/systemd/container

# Filesystems
for name in full full2 nearly inodes ro lost; do
    options=size=16m
    [ $name = inodes ] && options=size=16m,nr_inodes=200
    mkdir -p /srv/$name
    echo "tmpfs /srv/$name tmpfs $options 0 0" >> /etc/fstab
    mount /srv/$name
done
mkdir -p /var/lib/dogwatch
echo "tmpfs /var/lib/dogwatch tmpfs size=64m 0 0" >> /etc/fstab
mount /var/lib/dogwatch
systemctl daemon-reload

# Files
for name in old missing large mode; do echo x > /srv/files/$name; done
chmod 644 /srv/files/*
chmod 755 /srv/files/queue
head -c 4096 /dev/zero > /srv/files/small
echo x > /srv/files/queue/1

# Units. Each does what /run/lab/NAME says: `exit`, `crash`, `mute`; otherwise it runs.
cat > $lab/unit <<'END'
#!/bin/sh
case "$(cat /run/lab/"$1" 2>/dev/null)" in
exit) exit 3 ;;
crash) kill -SEGV $$ ;;
mute) exec sleep 60 ;;
done) exit 0 ;;
esac
[ "$2" = oneshot ] && exit 0
[ -n "$NOTIFY_SOCKET" ] && systemd-notify --ready
exec sleep infinity
END
chmod 755 $lab/unit
unit() { # NAME ARGUMENT LINE...
    name=$1; argument=$2; shift 2
    { printf '[Unit]\nDescription=lab %s\n[Service]\nExecStart=%s/unit %s %s\n' "$name" $lab "$name" "$argument"
      for line; do echo "$line"; done
      printf '[Install]\nWantedBy=multi-user.target\n'; } > /etc/systemd/system/lab-$name.service
}
unit fails ''
unit crashes ''
unit program ''
unit loops '' Restart=always RestartSec=200ms '[Unit]' StartLimitIntervalSec=0
unit mute '' Type=notify NotifyAccess=all TimeoutStartSec=2
unit named ''
unit absent ''
unit oneshot oneshot Type=oneshot
unit timed oneshot Type=oneshot
unit socketed oneshot Type=oneshot
printf '[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\n' > /etc/systemd/system/lab-timed.timer
printf '[Socket]\nListenStream=127.0.0.1:8301\n' > /etc/systemd/system/lab-socketed.socket
systemctl daemon-reload
systemctl -q enable --now lab-fails lab-crashes lab-program lab-loops lab-mute lab-named lab-absent
systemctl start lab-oneshot lab-socketed.socket

# Peers and processes
peer() { # UNIT ROLE NAME AT
    systemd-run -q --unit="$1" perl $lab/peer.pl "$2" "$3" "$4"
}
peer lab-tcp-closed banner closed 127.0.0.1:8101
peer lab-tcp-banner banner banner 127.0.0.1:8102
peer lab-tcp-deaf banner deaf 127.0.0.1:8103
peer lab-http-status http status 127.0.0.1:8201
peer lab-http-slow http slow 127.0.0.1:8202
peer lab-http-text http text 127.0.0.1:8203
peer lab-upstream dns upstream 127.0.0.2:53
peer lab-dns-name dns name 127.0.0.3:53
peer lab-dns-server dns server 127.0.0.4:53
peer lab-busy busy busy 127.0.0.1:8302
peer lab-memory process memory
peer lab-zombies process zombies
cp /usr/bin/sleep $lab/lab-daemon
systemd-run -q --unit=lab-daemon $lab/lab-daemon infinity

# Certificates
cd /etc/lab
cat > ca.cnf <<'END'
[ca]
default_ca = lab
[lab]
dir = /etc/lab
database = /etc/lab/index
new_certs_dir = /etc/lab
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
subjectAltName = DNS:localhost
basicConstraints = CA:FALSE
END
: > index
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -days 3650 -subj "/CN=lab CA" -keyout ca.key -out ca.pem 2>/dev/null
openssl req $key -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null
sign() { # NAME FROM TO
    openssl ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in server.csr \
        -startdate "$(date -u -d "$2" +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "$3" +%Y%m%d%H%M%SZ)" \
        -out "$1" 2>/dev/null
}
sign good.pem '-1 day' '+90 days'
sign soon.pem '-80 days' '+10 days'
sign expired.pem '-90 days' '-1 day'
cp good.pem server.pem
cp good.pem tls.pem
chmod 644 *.pem
systemd-run -q --unit=lab-tls sh -c \
    'exec openssl s_server -quiet -www -accept 8443 -cert /etc/lab/tls.pem -key /etc/lab/server.key'

# Plugins
cat > $lab/plugin <<'END'
#!/bin/sh
case "$(cat /run/lab/"$1" 2>/dev/null)" in
hang) sleep 30 ;;
critical) echo "LAB CRITICAL - it is broken | value=9"; exit 2 ;;
gone) exec /usr/local/lib/lab/no-such-program ;;
esac
echo "LAB OK - it works | value=1"
END
chmod 755 $lab/plugin
