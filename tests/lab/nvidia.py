"""A graphics card that is not there: its driver, its container toolkit and NVIDIA's repository.

Everything up to CUDA is what a real host has: the CDI specification, Docker's handing out of devices
and mounts, and an nvidia-smi on the host and inside containers.
"""

from gatehouse.lab.workstation import Workstation

DRIVER = "570.133.20"
REPOSITORY = "/srv/nvidia"
# Inside a container that has this file the card is lost.
LOST = "/tmp/card-is-lost"  # noqa: S108 - inside the container

# A driver: its kernel module's version, its library, its daemon, and nvidia-smi.
_DRIVER = rf"""
set -eu
mountpoint -q /proc/driver || mount -t tmpfs tmpfs /proc/driver
mkdir -p /proc/driver/nvidia
echo 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Thu May  1 10:00:00 UTC 2025' \
    >/proc/driver/nvidia/version
touch /usr/lib/libcuda.so.{DRIVER}
cat >/usr/bin/nvidia-smi <<'END'
#!/bin/sh
if [ -e {LOST} ]; then echo 'Failed to initialize NVML: Unknown Error'; exit 255; fi
mode=Disabled; [ -e /run/fake-persistence ] && mode=Enabled
case "$*" in
*persistence-mode=1*) touch /run/fake-persistence ;;
*index,persistence_mode*) echo "0, $mode" ;;
*persistence_mode*) echo "$mode" ;;
*query-gpu*) echo '0, GPU-00000000-fake, Simulated Card, 24564, {DRIVER}' ;;
*) echo 'GPU 0: Simulated Card (UUID: GPU-00000000-fake)' ;;
esac
END
chmod 755 /usr/bin/nvidia-smi
printf '%s\n' '[Service]' 'ExecStart=/bin/sleep infinity' '[Install]' 'WantedBy=multi-user.target' \
    >/usr/lib/systemd/system/nvidia-persistenced.service
systemctl daemon-reload
"""

# The repository as NVIDIA lays it out: flat, one folder for an architecture, the key beside it. Its
# one package brings a toolkit whose specification maps the card to /dev/null. Prints the key's
# fingerprint.
_REPOSITORY = rf"""
set -eu
export GNUPGHOME=/root/gnupg-nvidia
arch=$(dpkg --print-architecture)
folder={REPOSITORY}/stable/deb/$arch package=/root/nvidia-container-toolkit
command -v gpg gpg-agent >/dev/null || {{ apt-get -q update && DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends gpg gpg-agent; }} >&2
mkdir -p -m 700 $GNUPGHOME
mkdir -p $folder $package/DEBIAN $package/usr/bin $package/usr/lib/systemd/system
gpg --batch --quiet --passphrase '' --quick-generate-key 'The repository' ed25519 sign never
gpg --armor --export >{REPOSITORY}/gpgkey

cat >$package/usr/bin/nvidia-ctk <<'END'
#!/bin/sh
if [ "$1" = --version ]; then echo 'NVIDIA Container Toolkit CLI version 1.18.1'; exit; fi
driver=$(grep -oE '[0-9]+(\.[0-9]+)+' /proc/driver/nvidia/version | head -n 1)
mkdir -p /run/cdi
cat >/run/cdi/.nvidia.yaml <<SPEC
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits: {{deviceNodes: [{{path: /dev/nvidia0, hostPath: /dev/null}}]}}
- name: all
  containerEdits: {{deviceNodes: [{{path: /dev/nvidia0, hostPath: /dev/null}}]}}
containerEdits:
  env: [FAKE_GPU=1]
  mounts:
  - {{hostPath: /usr/bin/nvidia-smi, containerPath: /usr/bin/nvidia-smi, options: [ro, nosuid, nodev, bind]}}
  - {{hostPath: /usr/lib/libcuda.so.$driver, containerPath: /usr/lib/libcuda.so.$driver, options: [ro, nosuid, nodev, bind]}}
SPEC
mv /run/cdi/.nvidia.yaml /run/cdi/nvidia.yaml
END
printf '%s\n' '#!/bin/sh' 'exec runc "$@"' >$package/usr/bin/nvidia-container-runtime
chmod 755 $package/usr/bin/*
printf '%s\n' '[Service]' 'Type=oneshot' 'RemainAfterExit=yes' 'ExecStart=/usr/bin/nvidia-ctk cdi generate' \
    '[Install]' 'WantedBy=multi-user.target' >$package/usr/lib/systemd/system/nvidia-cdi-refresh.service
printf '%s\n' '[Path]' 'PathChanged=/usr/bin/nvidia-ctk' '[Install]' 'WantedBy=multi-user.target' \
    >$package/usr/lib/systemd/system/nvidia-cdi-refresh.path
printf '%s\n' '#!/bin/sh' 'systemctl daemon-reload' \
    'systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service' >$package/DEBIAN/postinst
chmod 755 $package/DEBIAN/postinst
printf '%s\n' 'Package: nvidia-container-toolkit' 'Version: 1.18.1-1' 'Maintainer: nobody' \
    "Architecture: $arch" 'Description: a toolkit without a card' >$package/DEBIAN/control
file=$folder/nvidia-container-toolkit.deb
dpkg-deb --root-owner-group -Znone -b $package $file >&2
{{ dpkg-deb -f $file; printf '%s\n' 'Filename: ./nvidia-container-toolkit.deb' \
    "Size: $(stat -c %s $file)" "SHA256: $(sha256sum <$file | cut -d ' ' -f 1)"; }} >$folder/Packages
printf '%s\n' "Date: $(date -Ru)" 'SHA256:' \
    " $(sha256sum <$folder/Packages | cut -d ' ' -f 1) $(stat -c %s $folder/Packages) Packages" >/root/Release
gpg --batch --yes --clearsign --output $folder/InRelease /root/Release
gpg --with-colons --list-keys | awk -F : '$1 == "fpr" {{ print $10; exit }}'
"""


def install(workstation: Workstation) -> dict[str, object]:
    """Give the workstation a card and NVIDIA's repository; gives the settings to deploy it with."""
    workstation.exec(_DRIVER)
    fingerprint = workstation.exec(_REPOSITORY).stdout.strip()
    return {
        "gpu_mode": "nvidia",
        "gpu_toolkit_repository_url": f"file://{REPOSITORY}",
        "gpu_toolkit_repository_fingerprint": fingerprint,
    }


def update_driver(workstation: Workstation, version: str) -> None:
    """Load another driver, as after a reboot into it, without anybody noticing."""
    workstation.exec(
        f"sed -i 's/{DRIVER}/{version}/' /proc/driver/nvidia/version && "
        f"touch /usr/lib/libcuda.so.{version}"
    )
