//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/testing/busyguest"
)

// What is written to a layer in memory is gone at Stop; no disk is made for it, and the drives are one letter earlier.
func TestLabLayerInMemory(t *testing.T) {
	r := newLabRig(t, false)
	drive := newDisk(t, "drive")
	vm := r.create(microvm.Spec{LayerInMemory: true, Drives: []microvm.Drive{{Path: drive}}})
	r.start(vm)
	if got := sh(t, vm, "echo lost > /root/lost; cat /root/lost; stat -f -c %T /root; ls /dev/vd*; printf kept | dd of=/dev/vdb conv=fsync 2>/dev/null"); got != "lost\noverlayfs\n/dev/vda\n/dev/vdb" {
		t.Errorf("in the guest: %q", got)
	}
	r.stop(vm, microvm.ReasonStopped)
	if layer := filepath.Join(r.options.StateDir, "machines", vm.UID(), "layer"); exists(layer) {
		t.Error("a layer was made on the host")
	}
	r.start(vm)
	if got := sh(t, vm, "ls /root/lost 2>/dev/null || echo gone; head -c 4 /dev/vdb"); got != "gone\nkept" {
		t.Errorf("after the second start: %q", got)
	}
	if err := vm.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A drive's data outlive the machine and are the next one's; a shared drive can't be written to; a limited one is no faster than its limit.
func TestLabDrives(t *testing.T) {
	r := newLabRig(t, false)
	data, tools, slow := newDisk(t, "data"), newDisk(t, "tools"), newDisk(t, "slow")
	if err := os.WriteFile(tools, []byte(strings.Repeat("tools", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := microvm.Spec{Drives: []microvm.Drive{{Path: data}, {Path: tools, ReadOnly: true}, {Path: slow, ReadOnly: true, Limit: &microvm.RateLimit{BytesPerSecond: 256 << 10}}}}
	vm := r.create(spec)
	r.start(vm)
	begin := time.Now()
	sh(t, vm, "dd if=/dev/vde of=/dev/null bs=64k iflag=direct 2>/dev/null") // 1 MiB, of which the first 256 KiB are free
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("1 MiB at 256 KiB a second took %v", took)
	}
	if got := sh(t, vm, "head -c 5 /dev/vdd; blockdev --getro /dev/vdc /dev/vdd | tr '\\n' ' '; dd if=/dev/zero of=/dev/vdd count=1 2>/dev/null && echo written; true"); got != "tools0 1 " {
		t.Errorf("in the guest: %q", got)
	}
	sh(t, vm, "printf 'first was here' | dd of=/dev/vdc bs=512 seek=7 conv=fsync 2>/dev/null")
	if text, err := os.ReadFile(data); err != nil || string(text[7*512:7*512+14]) != "first was here" {
		t.Errorf("what was flushed is not in the host's file: %q, %v", text[7*512:7*512+14], err)
	}
	if err := vm.Destroy(t.Context()); err != nil { // while it runs
		t.Fatal(err)
	}
	next := r.create(spec)
	r.start(next)
	if got := sh(t, next, "dd if=/dev/vdc bs=512 skip=7 count=1 2>/dev/null | head -c 14"); got != "first was here" {
		t.Errorf("the next machine reads %q", got)
	}
	if err := next.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A full layer is ENOSPC in its guest and nobody else's business: the guest goes on, its neighbour too, and the host's file is no larger than was said.
func TestLabFullLayer(t *testing.T) {
	const sizeMiB = 64
	r := newLabRig(t, false)
	vm, neighbour := r.create(microvm.Spec{LayerMiB: sizeMiB}), r.create(microvm.Spec{LayerMiB: sizeMiB})
	r.start(vm)
	r.start(neighbour)
	// What is written last is allocated late, and may leave some blocks: they are filled one by one.
	fill := "exec 2>/dev/null; dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -o 'No space left on device'; sync; for i in 1 2 3; do dd if=/dev/zero of=/rest$i bs=1k; sync; done; echo more > /more || echo refused; echo it goes on"
	if got := sh(t, vm, fill); got != "No space left on device\nrefused\nit goes on" {
		t.Errorf("in the guest: %q", got)
	}
	if disk := awaitEvent(t, vm, guest.EventDiskFull).Disk; disk == nil || disk.Free != 0 || disk.Size < sizeMiB<<19 || disk.Size > sizeMiB<<20 {
		t.Errorf("the guest tells %+v", disk)
	}
	layer := filepath.Join(r.options.StateDir, "machines", vm.UID(), "layer")
	if _, stat := look(t, layer); stat.Size != sizeMiB<<20 || stat.Blocks*512 > sizeMiB<<20+1<<20 {
		t.Errorf("the host's file has %d bytes, %d of disk, want %d", stat.Size, stat.Blocks*512, sizeMiB<<20)
	}
	sh(t, neighbour, fmt.Sprintf("dd if=/dev/zero of=/some bs=1M count=%d 2>/dev/null; sync", sizeMiB/2))
	if got := sh(t, vm, "rm /fill /rest* && echo room > /room && cat /room"); got != "room" {
		t.Errorf("with room again: %q", got)
	}
	awaitEvent(t, vm, guest.EventDiskOK)
	r.stop(vm, microvm.ReasonStopped)
	r.start(vm)
	if got := sh(t, vm, "cat /room"); got != "room" {
		t.Errorf("after the next start: %q", got)
	}
	for _, vm := range []*microvm.VM{vm, neighbour} {
		if err := vm.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// After a stop in peace the host gets back what the guest has removed, and nothing of what is there is lost. After a forced end it is not known what is free.
func TestLabTrim(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{LayerMiB: 256})
	r.start(vm)
	sum := sh(t, vm, "head -c 8M /dev/urandom > /kept; head -c 32M /dev/zero | tr '\\0' x > /gone; sync; rm /gone; sync; sha256sum /kept")
	if _, err := vm.Trim(t.Context()); !errors.Is(err, microvm.ErrState) {
		t.Errorf("Trim of a machine that runs = %v", err)
	}
	if _, err := vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if freed, err := vm.Trim(t.Context()); !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "not unmounted") {
		t.Errorf("Trim after a forced end = %d, %v", freed, err)
	}
	r.start(vm)
	r.stop(vm, microvm.ReasonStopped)
	layer := filepath.Join(r.options.StateDir, "machines", vm.UID(), "layer")
	_, before := look(t, layer)
	freed, err := vm.Trim(t.Context())
	_, after := look(t, layer)
	if err != nil || freed < 24<<20 || freed != (before.Blocks-after.Blocks)*512 {
		t.Errorf("Trim = %d, %v; the layer had %d bytes of disk, and has %d", freed, err, before.Blocks*512, after.Blocks*512)
	}
	r.start(vm)
	if got := sh(t, vm, "sha256sum /kept"); got != sum {
		t.Errorf("the file that stayed is %q, was %q", got, sum)
	}
	if err := vm.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A private root file system is as large as was asked for, and its own init can use all of it.
func TestLabGrownRootfs(t *testing.T) {
	r := newLabRig(t, false)
	rootfs := filepath.Join(t.TempDir(), "rootfs.ext4")
	err := busyguest.WriteRootfs(t.Context(), rootfs, r.parts.Busybox, map[string]string{
		"etc/inittab": "::sysinit:/etc/rc\n",
		"etc/rc":      "#!/bin/sh\nbusybox mount -t proc proc /proc && busybox mount -o remount,rw / && busybox mount -t devtmpfs dev /dev && busybox dd if=/dev/zero of=/fill bs=1M count=100 && echo it is $(busybox df -m / | busybox awk 'NR==2 {print ($2 > 180)}') large\nbusybox reboot\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	vm := r.create(microvm.Spec{Rootfs: rootfs, RootfsWritable: true, RootfsMiB: 200, Initrd: r.ownInitrd(switchRoot)})
	if err := vm.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.waitFor(vm, microvm.ReasonGuest)
	if console := r.console(vm); !strings.Contains(console, "it is 1 large") {
		t.Errorf("console:\n%s", console)
	}
}
