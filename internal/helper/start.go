//go:build linux

package helper

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	self         = "/proc/self/exe" // also when the file was replaced since: what runs is what is meant
	defaultReady = 10 * time.Second
	busyPause    = 20 * time.Millisecond
	maxConfig    = 64 << 10
	maxLog       = 1 << 20
	maxAnswer    = 64 << 10
)

// Spec says which helper there is to be. Required are Kind, Version and Dir.
type Spec struct {
	Kind    string
	Version string                       // A helper of another version is replaced.
	Dir     string                       // Absolute; it is there, and nobody but its owner can write to it.
	Config  []byte                       // What the helper is told. A helper that was told otherwise is replaced. At most 64 KiB. Optional.
	Path    string                       // The program, whose main calls Main. Optional: this one, if its main did.
	Cgroup  func() (*cgroup.Leaf, error) // Makes the leaf that a helper begins in, when one is started. Optional.
	Timeout time.Duration                // How long a helper may take until it serves. Optional: 10 seconds.
}

// Handle is a helper that serves, or has served.
type Handle struct {
	process *vmm.Process
	Version string
	Adopted bool // It was there already.
}

// Start returns the helper of a kind and a directory, and starts it where there is none as is asked for. ctx bounds the call, not the helper.
//
// The error is microvm.ErrUnsupported where no program is known that can be a helper, microvm.ErrIncompatible where the program is of another version,
// and microvm.ErrBusy where ctx ends while others start or stop helpers, and where there is one that can't be judged from here.
func Start(ctx context.Context, spec Spec) (*Handle, error) {
	h, err := start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("helper %s of %s: %w", spec.Kind, spec.Dir, err)
	}
	return h, nil
}

func start(ctx context.Context, spec Spec) (*Handle, error) {
	if !filepath.IsAbs(spec.Dir) || len(spec.Config) > maxConfig {
		return nil, fmt.Errorf("%w: the directory must be absolute, and the configuration at most %d bytes", microvm.ErrInvalid, maxConfig)
	}
	at := place{spec.Dir, spec.Kind}
	lock, err := flock.Lock(ctx, at.starting())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	there, living, err := settle(ctx, at)
	if err != nil {
		return nil, err
	}
	if there == nil {
		living.Close() // for the new one: nobody else starts one now
		return launch(ctx, spec, at)
	}
	if there.record.Version == spec.Version && bytes.Equal(there.record.Config, spec.Config) {
		return there.Handle, nil
	}
	if err := errors.Join(there.Kill(ctx), there.Close()); err != nil {
		return nil, fmt.Errorf("replace version %q: %w", there.record.Version, err)
	}
	return launch(ctx, spec, at)
}

// settle returns the helper that serves, or the lock of helpers where none lives. It is called with the lock of starters.
// One that lives and does not serve yet has lost its starter: it serves in a moment, or ends.
func settle(ctx context.Context, at place) (there *found, living io.Closer, err error) {
	for {
		there, err := find(at)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return there, nil, err
		}
		wait, cancel := context.WithTimeout(ctx, busyPause)
		lock, err := flock.Lock(wait, at.lock())
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, microvm.ErrBusy) {
			return nil, lock, err
		}
	}
}

// found is a helper with its record.
type found struct {
	*Handle
	record *record
}

// find answers fs.ErrNotExist where none is written down that lives.
func find(at place) (*found, error) {
	r, err := readRecord(at)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fs.ErrNotExist
	}
	process, err := vmm.Open(r.Identity)
	switch {
	case errors.Is(err, vmm.ErrGone):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, fmt.Errorf("%w: process %d: %w", microvm.ErrBusy, r.Identity.PID, err)
	}
	select {
	case <-process.Done():
		return nil, cmp.Or(process.Close(), error(fs.ErrNotExist))
	default:
	}
	return &found{&Handle{process: process, Version: r.Version, Adopted: true}, r}, nil
}

// Find returns the helper that serves, whatever its version, and fs.ErrNotExist where there is none.
func Find(dir, kind string) (*Handle, error) {
	there, err := find(place{dir, kind})
	if err != nil {
		return nil, fmt.Errorf("helper %s of %s: %w", kind, dir, err)
	}
	return there.Handle, nil
}

// Stop kills the helper, if there is one, and removes its files. Who Starts at the same time gets a new one.
func Stop(ctx context.Context, dir, kind string) error {
	at := place{dir, kind}
	lock, err := flock.Lock(ctx, at.starting())
	if errors.Is(err, fs.ErrNotExist) { // there is no directory
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	there, living, err := settle(ctx, at)
	if err == nil && there != nil {
		err = errors.Join(there.Kill(ctx), there.Close())
	}
	if living != nil {
		defer living.Close()
	}
	if err != nil {
		return fmt.Errorf("helper %s of %s: %w", kind, dir, err)
	}
	for _, path := range []string{at.record(), at.log(), at.lock(), at.starting()} { // the lock that is held, last
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// program says what to execute.
func (s Spec) program() (string, error) {
	switch {
	case s.Path != "" && !filepath.IsAbs(s.Path):
		return "", &microvm.FieldError{Field: "Options.HelperPath", Value: s.Path, Reason: "must be an absolute path"}
	case s.Path != "":
		return s.Path, nil
	case mainWasCalled.Load():
		return self, nil
	}
	return "", fmt.Errorf("%w: no program is known that can be one (call firecracker.Helper() first in main, or name a microvm binary by Options.HelperPath or MICROVM_HELPER_BIN)",
		microvm.ErrUnsupported)
}

// launch starts one, in a leaf of its own where such are made. Of one that does not serve nothing stays.
func launch(ctx context.Context, spec Spec, at place) (*Handle, error) {
	if spec.Cgroup == nil {
		return launchIn(ctx, spec, at, nil)
	}
	leaf, err := spec.Cgroup()
	if err != nil {
		return nil, err
	}
	defer leaf.Close()
	h, err := launchIn(ctx, spec, at, leaf)
	if err != nil {
		err = errors.Join(err, leaf.Remove())
	}
	return h, err
}

// launchIn starts one, and waits until it serves. It is gone when an error is returned.
func launchIn(ctx context.Context, spec Spec, at place, leaf *cgroup.Leaf) (h *Handle, err error) {
	program, err := spec.program()
	if err != nil {
		return nil, err
	}
	timeout := cmp.Or(spec.Timeout, defaultReady)
	text, err := json.Marshal(order{Timeout: timeout, Protocol: protocol, Kind: spec.Kind, Version: spec.Version, Dir: spec.Dir, Config: spec.Config})
	if err != nil {
		return nil, err
	}
	log, err := openLog(at.log())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	process, err := vmm.Start(vmm.Command{
		Path: program, Name: "microvm-" + spec.Kind, Args: []string{spec.Dir}, Dir: "/", Env: []string{marker + "=" + string(text)}, Stdout: writer, Stderr: log, Cgroup: leaf,
	})
	writer.Close()
	if err != nil {
		return nil, err
	}
	h = &Handle{process: process, Version: spec.Version}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := await(ctx, reader); err != nil {
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultReady)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("%s: %w (its log is %s)", program, err, at.log()), h.Kill(wait), h.Close())
	}
	return h, nil
}

// openLog begins anew when the log is long: helpers may be started for years.
func openLog(path string) (*os.File, error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := log.Stat()
	if err == nil && info.Size() > maxLog {
		err = log.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// await returns nil when the helper says that it serves.
func await(ctx context.Context, reader *os.File) error {
	stop := context.AfterFunc(ctx, func() { reader.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(reader, maxAnswer)).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it did not say that it serves: %w (does its main call firecracker.Helper() first?)", context.Cause(ctx))
	}
	var a answer
	if err != nil || json.Unmarshal([]byte(line), &a) != nil || a.Protocol != protocol {
		return fmt.Errorf("it ended, or said %q, and not that it serves (does its main call firecracker.Helper() first?)", abbreviate(line))
	}
	switch {
	case a.Error == "":
		return nil
	case a.Cause == causeBusy:
		return fmt.Errorf("%w: %s", errBusy, a.Error)
	case a.Cause == causeVersion:
		return fmt.Errorf("%w: %s", microvm.ErrIncompatible, a.Error)
	}
	return errors.New(a.Error)
}

func abbreviate(line string) string {
	if len(line) > 80 {
		line = line[:80] + "…"
	}
	return strings.TrimSpace(line)
}

// PID returns the helper's number. It is for people: signals go by Kill.
func (h *Handle) PID() int { return h.process.Identity().PID }

// Done is closed when the helper has ended.
func (h *Handle) Done() <-chan struct{} { return h.process.Done() }

// Kill kills the helper, and waits for its end.
func (h *Handle) Kill(ctx context.Context) error {
	if err := h.process.Kill(); err != nil {
		return err
	}
	_, err := h.process.Wait(ctx)
	return err
}

// Close releases what this process has of the helper. The helper goes on.
func (h *Handle) Close() error { return h.process.Close() }
