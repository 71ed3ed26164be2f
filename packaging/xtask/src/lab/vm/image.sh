# FOLDER SUITE PACKAGES SIZE SOURCES...: makes FOLDER/root.img, vmlinuz and initrd.
folder=$1 suite=$2 packages=$3 size=$4
shift 4
root=$folder/rootfs
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --include="$packages" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
        printf "MODULES=list\nCOMPRESS=lz4\n" > "$1/etc/initramfs-tools/conf.d/lab"
        printf "virtio_pci\nvirtio_blk\next4\n" > "$1/usr/share/initramfs-tools/modules.d/lab"' \
    "$suite" "$root" "$@"
cp "$root"/boot/vmlinuz-* "$folder/vmlinuz"
cp "$root"/boot/initrd.img-* "$folder/initrd"
: > "$root/etc/machine-id"
echo vm > "$root/etc/hostname"
echo '127.0.0.1 localhost vm' > "$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
echo 'nameserver 127.0.0.2' > "$root/etc/resolv.conf"
mv "$folder/channel.pl" "$root/usr/local/lib/channel.pl"
cat > "$root/etc/systemd/system/lab-channel.service" <<'END'
[Unit]
Description=commands of the lab
[Service]
ExecStartPre=/bin/sh -c 'modprobe virtio_console; mkdir -p /root/files; tar xf /dev/vdb -C /root/files; until [ -e /dev/virtio-ports/lab ]; do sleep 0.2; done'
ExecStart=/usr/bin/perl /usr/local/lib/channel.pl
[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl -q enable lab-channel.service
chroot "$root" systemctl -q set-default multi-user.target
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service \
    getty@tty1.service systemd-networkd-wait-online.service 2>/dev/null || true
truncate -s "$size" "$folder/root.img"
mkfs.ext4 -q -F -E lazy_itable_init=0 -O '^has_journal' -d "$root" "$folder/root.img"
rm -rf "$root"
