# Cables of the host, each to a namespace of its own, and sensors and an array that the kernel of
# the machine does not have. Runs in the host before the package is installed.
set -e
systemd-run -q --unit=lab-net -p PrivateNetwork=yes sleep infinity
pid=$(systemctl show -P MainPID lab-net)
for n in 0 1 2; do
    ip link add lab$n type veth peer name peer$n
    ip link set peer$n netns "$pid"
    ip addr add 10.99.$n.1/24 dev lab$n
    ip link set lab$n up
    nsenter -t "$pid" -n ip addr add 10.99.$n.2/24 dev peer$n
    nsenter -t "$pid" -n ip link set peer$n up
done

class=/run/lab-class
mkdir -p $class
# Some files there cannot be read.
cp -a /sys/class/. $class/ 2>/dev/null || true
cpu=$class/hwmon/hwmon0 board=$class/hwmon/hwmon1
mkdir -p $cpu $board
echo coretemp > $cpu/name
echo 'Package id 0' > $cpu/temp1_label
echo 45000 > $cpu/temp1_input
echo 80000 > $cpu/temp1_max
echo 100000 > $cpu/temp1_crit
echo nct6775 > $board/name
echo 1200 > $board/fan1_input
mv $class/net $class/net.copy
mkdir $class/net
mount --bind /sys/class/net $class/net
mount --rbind $class /sys/class

block=/run/lab-block
mkdir -p $block
cp -a /sys/block/. $block/
md=$block/md0/md
mkdir -p $md
echo clean > $md/array_state
echo raid1 > $md/level
echo 2 > $md/raid_disks
echo 0 > $md/degraded
echo idle > $md/sync_action
echo none > $md/sync_completed
echo 1.2 > $md/metadata_version
echo 0 > $md/mismatch_cnt
mount --bind $block /sys/block
