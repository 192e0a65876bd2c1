//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// panicked is what Linux says last. The lab's host does when the emulator gives it an interrupt that is a guest's.
const panicked = "Kernel panic - not syncing"

// run starts QEMU and reads events until it ends, or is to be killed.
func (l *lab) run(ctx context.Context) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.path("events"), Net: "unix"})
	if err != nil {
		return err
	}
	defer listener.Close()
	log, own := l.console(), l.path("qemu.log")
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", l.arguments(log)...)
	cmd.WaitDelay = 5 * time.Second
	errors_, err := os.Create(own)
	if err != nil {
		return err
	}
	defer errors_.Close()
	cmd.Stderr = errors_
	if err := startPinned(cmd, l.cpu); err != nil {
		return fmt.Errorf("qemu: %w (apt-get install qemu-system-x86)", err)
	}
	w := &watch{patience: l.patience, share: l.share, jobs: l.Jobs, event: l.Event}
	watched := make(chan error, 1)
	go func() {
		err := w.accept(listener)
		if err != nil {
			kill(err)
		}
		watched <- err
	}()
	err = cmd.Wait()
	listener.Close()
	halt, _ := errors.AsType[*haltError](<-watched)
	switch {
	case halt != nil:
	case !w.booted && ctx.Err() == nil:
		halt = &haltError{reason: fmt.Sprintf("the lab's host ended before its boot (QEMU: %v)", cmd.ProcessState)}
	case !w.finished && ctx.Err() == nil && strings.Contains(tail(log), panicked):
		halt = &haltError{reason: "the lab's host panicked " + w.where()}
	case !w.finished || err != nil:
		err = errors.Join(fmt.Errorf("it ended %s (QEMU: %v)", w.where(), cmd.ProcessState), err, context.Cause(ctx))
		return fmt.Errorf("%w\n%s\n%s", err, tail(own), tail(log))
	default:
		return nil
	}
	halt.console = tail(own) + "\n" + tail(log)
	return halt
}

// console is the path of what the lab's kernel says.
func (l *lab) console() string {
	switch {
	case l.Log == "":
		return l.path("console.log")
	case l.number > 1:
		return fmt.Sprintf("%s.%d", l.Log, l.number)
	}
	return l.Log
}

func (l *lab) arguments(log string) []string {
	args := []string{
		"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", strconv.Itoa(memoryMiB),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + log,
		"-kernel", l.Parts.Vmlinuz, "-initrd", l.initrd, "-append", "console=ttyS0 quiet mitigations=off nokaslr reboot=t panic=1",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=events,path=" + l.path("events"), "-device", "virtserialport,chardev=events,name=" + Port,
	}
	for _, d := range []struct{ path, options string }{
		{l.Parts.LabHost, "readonly=on"}, {l.path("layer.ext4"), "cache=unsafe"}, {l.parts, "readonly=on"},
		{l.payload, "readonly=on"}, {l.path("scratch.ext4"), "cache=unsafe"},
	} {
		args = append(args, "-drive", "if=virtio,format=raw,"+d.options+",file="+d.path)
	}
	return args
}

func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 4 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		f.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	return string(text)
}
