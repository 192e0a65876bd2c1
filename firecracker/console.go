//go:build linux

package firecracker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/console"
)

// output is what a VMM writes to: its standard output is the guest's console, its errors go to a file apart from it.
type output struct {
	console, stderr *os.File
}

func stderrPath(dir string) string { return filepath.Join(dir, "stderr") }

func openOutput(dir string) (*output, error) {
	out, err := console.Create(dir)
	if err != nil {
		return nil, err
	}
	stderr, err := os.OpenFile(stderrPath(dir), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return &output{console: out, stderr: stderr}, nil
}

func (o *output) close() {
	o.console.Close()
	o.stderr.Close()
}

func (d *driver) makeVolatile(uid string) error {
	err := os.Mkdir(d.state.Volatile(uid), 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// Console reads the console of the last run.
func (d *driver) Console(ctx context.Context, uid string, o microvm.ConsoleOptions) (reader io.ReadCloser, err error) {
	err = d.reading(ctx, func(context.Context) error {
		if err := d.hasRun(uid); err != nil {
			return err
		}
		options := console.ReadOptions{Tail: o.Tail}
		if o.Follow {
			options.Ended = d.drained(uid)
		}
		opened, err := console.Open(ctx, d.state.Volatile(uid), options) // it is read after the call
		if err == nil {
			reader = &consoleReader{ReadCloser: opened, life: d.life, follows: o.Follow}
		}
		return err
	})
	return reader, err
}

// hasRun says whether the machine was ever started, and watches it if it runs: what is read is what some process drains.
func (d *driver) hasRun(uid string) error {
	d.mu.Lock()
	watched := d.watched[uid] != nil
	d.mu.Unlock()
	if watched {
		return nil
	}
	info, _, err := d.look(uid, "")
	if err != nil {
		return err
	}
	if info.State == microvm.StateCreated || info.State == microvm.StateCreating {
		return stateError("read the console of", info.State)
	}
	d.adopt(uid)
	return nil
}

// drained returns what is closed when the machine's run is over and its console is all in the log; closed already when none runs.
func (d *driver) drained(uid string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.watched[uid]; w != nil {
		return w.drained
	}
	over := make(chan struct{})
	close(over)
	return over
}

// consoleReader tells the end of the runtime from that of the run.
type consoleReader struct {
	io.ReadCloser
	life    context.Context
	follows bool
}

func (r *consoleReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == io.EOF && r.follows && r.life.Err() != nil {
		err = microvm.ErrClosed
	}
	return n, err
}
