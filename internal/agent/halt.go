//go:build linux

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// termPatience is how long processes may take to end by themselves when the system ends.
const termPatience = 2 * time.Second

// Halt ends the system: processes are asked, then killed; file systems are written and unmounted; the machine is reset, which is the one thing that ends its VMM. It
// returns only an error.
func Halt() error {
	unix.Kill(-1, unix.SIGTERM)
	for begin := time.Now(); othersLive() && time.Since(begin) < termPatience; {
		time.Sleep(5 * time.Millisecond)
	}
	unix.Kill(-1, unix.SIGKILL)
	for begin := time.Now(); othersLive() && time.Since(begin) < termPatience; {
		time.Sleep(time.Millisecond)
	}
	unix.Sync()
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""), closeLayer())
	unix.Sync()
	return errors.Join(err, Reset())
}

// closeLayer makes the layer read-only, which is as good as unmounted: its journal is empty then, and the host can tell what is free. The overlay can't be unmounted under the agent,
// and hides the layer's mount; but a disk that is mounted twice has one file system.
func closeLayer() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	layer, err := layerOf(string(cmdline))
	if err != nil || !filepath.IsAbs(layer.source) {
		return err
	}
	layer.target = "/run/microvm-layer"
	if err := layer.do(); err != nil {
		return err
	}
	return unix.Mount("", layer.target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// Reset resets the machine at once.
func Reset() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }

// othersLive says whether a process other than this one, and other than kernel threads, runs.
func othersLive() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, err := os.Readlink("/proc/" + entry.Name() + "/exe"); err == nil {
			return true
		}
	}
	return false
}

// HoldCtrlAltDel makes Ctrl-Alt-Del a SIGINT to the first process instead of a reset (reboot(2)).
func HoldCtrlAltDel() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }
