#!/bin/sh
# Runs on a node of the lab, whose mounts are its own. Gives it what a container runtime expects of a machine,
# so that none of it is written to the host's folders, and an image of a static busybox: $1 is the program.
set -eu
busybox=$1

# The cgroup folder of a node is empty and of no known type; in a tmpfs runtimes see a machine without controllers.
for folder in /dev/shm /opt /sys/fs/cgroup /var/lib/containers /var/lib/containerd /var/tmp; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=0755 none "$folder"
done
chmod +x /run/runtime/runc

# An image as `docker save` would write it: a layer, its configuration and the manifest of the archive.
cd /run/runtime
mkdir -p root/bin root/proc root/sys root/dev root/etc root/run root/tmp
cp "$busybox" root/bin/busybox
for name in sh sleep ip ping; do ln -s busybox "root/bin/$name"; done
mkdir image
"$busybox" tar -C root -cf image/layer.tar .
layer=$("$busybox" sha256sum image/layer.tar | cut -d ' ' -f 1)
cat >image/config.json <<END
{"architecture": "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')", "os": "linux", "config": {},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
END
cat >image/manifest.json <<END
[{"Config": "config.json", "RepoTags": ["localhost/busybox:test"], "Layers": ["layer.tar"]}]
END
"$busybox" tar -C image -cf image.tar manifest.json config.json layer.tar
