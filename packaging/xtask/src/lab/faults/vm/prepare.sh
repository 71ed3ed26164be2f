# Makes the disks, sensors and links that the faults break, then installs the package.
set -e
umask 022
mkdir -p /var/lab /srv/ext4 /srv/btrfs /srv/export /srv/nfs
modprobe -a loop raid1 scsi_debug i2c-dev lm75 bonding veth nf_conntrack btrfs
ip link set lo up

# Disks
for i in 0 1 4; do truncate -s 40M /var/lab/$i; losetup /dev/loop$i /var/lab/$i; done
for i in 5 6; do truncate -s 150M /var/lab/$i; losetup /dev/loop$i /var/lab/$i; done
mdadm -q --create /dev/md0 --run --metadata=1.2 -l1 -n2 /dev/loop0 /dev/loop1
mkfs.ext4 -q -F -e continue /dev/loop4
mount /dev/loop4 /srv/ext4
mkfs.btrfs -q -d raid1 -m raid1 /dev/loop5 /dev/loop6
mount /dev/loop5 /srv/btrfs
rmmod scsi_debug 2>/dev/null || true
modprobe scsi_debug dev_size_mb=16 num_tgts=3 delay=0
sleep 1
systemd-run -q --unit=lab-reads sh -c 'while :; do dd if=/dev/sdc of=/dev/null bs=4k count=8 iflag=direct 2>/dev/null; sleep 0.2; done'
echo '/srv/export 127.0.0.1(rw,no_root_squash,insecure,fsid=1)' > /etc/exports
systemctl restart nfs-server
mount -t nfs -o vers=4,hard,timeo=10 127.0.0.1:/srv/export /srv/nfs

# Sensors
modprobe i2c-stub chip_addr=0x48
bus=$(basename "$(dirname "$(grep -l 'SMBus stub' /sys/class/i2c-adapter/*/name)")")
echo "${bus#i2c-}" > /run/lab-bus
i2cset -y "${bus#i2c-}" 0x48 0 0x002d w
i2cset -y "${bus#i2c-}" 0x48 3 0x0050 w
i2cset -y "${bus#i2c-}" 0x48 2 0x004b w
echo lm75 0x48 > /sys/class/i2c-adapter/"$bus"/new_device

# Links
for i in 0 1; do ip link add port$i type veth peer name peer$i; ip link set peer$i up; done
ip link add bond0 type bond mode active-backup miimon 100
for i in 0 1; do ip link set port$i master bond0; ip link set port$i up; done
ip link set bond0 up
nft 'add table inet lab; add chain inet lab in { type filter hook input priority 0; }; add rule inet lab in ct state established counter'

# Time: chrony is its own reference.
printf 'local stratum 10\n' > /etc/chrony/conf.d/lab.conf
systemctl restart chrony

# The package
systemd-run -q --unit=lab-upstream perl /root/files/peer.pl dns upstream 127.0.0.2:53
mkdir -p /etc/dogwatch/agent.d /etc/systemd/system/dogwatch.service.d
cp /root/files/drill.toml /etc/dogwatch/agent.d/drill.toml
# A jump of the clock is no news in the half hour after a boot, so the agent's clocks are a day
# ahead. CAP_SYSLOG is what docs/checks.md says for kmsg.
cat > /etc/systemd/system/dogwatch.service.d/drill.conf <<'END'
[Service]
NotifyAccess=all
TimeoutStartSec=120
WatchdogSec=0
ProtectKernelLogs=no
DeviceAllow=/dev/kmsg r
ExecStart=
ExecStart=+/usr/bin/unshare --time --monotonic 86400 --boottime 86400 --fork --kill-child /usr/bin/setpriv --reuid dogwatch --regid dogwatch --init-groups --inh-caps=-all,+syslog --ambient-caps=-all,+syslog --bounding-set=-all,+syslog /usr/bin/dogwatch run --config /etc/dogwatch/agent.toml
END
dpkg -i /root/files/dogwatch.deb
