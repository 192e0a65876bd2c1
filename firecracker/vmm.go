//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	// answerPatience is how long a VMM may take from its spawn to its answer. The largest machines take seconds for their memory.
	answerPatience = 30 * time.Second
	// wordsKept is how much of a VMM's log and errors goes into an error.
	wordsKept = 2 << 10
	logKept   = 64 << 10
)

// client returns a client of the machine's VMM.
func (d *driver) client(record *state.Record) *api.Client {
	p := d.place(record)
	return api.New(func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, socketPath) })
}

// awaitVMM waits until the VMM answers that the machine runs, and checks that it runs with what was asked. That the VMM ends is found at once; a guest that ended itself before
// anybody could ask has run.
func (b *boot) awaitVMM(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	stop := cancelWhen(cancel, b.process.Done())
	defer stop()
	if b.patient {
		b.awaitBoot(ctx)
	}
	var config api.ConfigFile
	err := b.whenItListens(ctx, func(ctx context.Context, c *api.Client) (err error) {
		config, err = c.GetVMConfig(ctx)
		return err
	})
	if err == nil {
		return planOf(b.record).compare(config)
	}
	if errors.Is(err, errHangs) && ended(b.process) { // it has run
		return nil
	}
	return b.notAnswered(ctx, err)
}

// greet connects to a VMM that is to wait, as soon as it listens, and stays connected: who takes it needs not wait for that.
func (b *boot) greet(ctx context.Context) error {
	b.client = b.driver.client(b.record)
	return b.untilItListens(ctx, func(ctx context.Context, c *api.Client) error {
		_, err := c.GetInstance(ctx)
		return err
	})
}

// hangUp ends what greet has begun.
func (b *boot) hangUp() error {
	if b.client != nil {
		b.client.Close()
		b.client = nil
	}
	return nil
}

// whenItListens asks a VMM that was spawned a moment ago, or waits, again until it listens.
func (b *boot) whenItListens(ctx context.Context, ask func(context.Context, *api.Client) error) error {
	if b.client == nil {
		b.client = b.driver.client(b.record)
	}
	defer b.hangUp()
	return b.untilItListens(ctx, ask)
}

// untilItListens asks by the client that is there.
func (b *boot) untilItListens(ctx context.Context, ask func(context.Context, *api.Client) error) error {
	for pause := 100 * time.Microsecond; ; pause = min(pause+pause/16, 5*time.Millisecond) { // who is late is so by little of what has passed
		err := b.driver.unlessHung(ctx, b.record, func(ctx context.Context) error { return ask(ctx, b.client) })
		if err == nil || !errors.Is(err, api.ErrGone) && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (b *boot) notAnswered(ctx context.Context, err error) error {
	select {
	case <-b.process.Done():
		status, _ := b.process.Wait(context.WithoutCancel(ctx)) // it has ended: this does not wait
		if b.ran(status) {
			return nil
		}
		b.unsaid = b.mute(status)
		if status.Signal != 0 {
			return fmt.Errorf("%w: its VMM ended by signal %d", microvm.ErrExited, status.Signal)
		}
		return fmt.Errorf("%w: its VMM ended with status %d", microvm.ErrExited, status.Code)
	default:
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) { // the last attempt failed before the context ended
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// ran says whether a VMM that has ended had started its guest, and the guest ended itself: it was only faster than we.
func (b *boot) ran(status vmm.Status) bool {
	return status.Known && status.Signal == 0 && status.Code == 0 && strings.Contains(b.driver.vmmLog(b.record), booted)
}

// cancelWhen calls cancel when done is closed, until stop.
func cancelWhen(cancel func(), done <-chan struct{}) (stop func()) {
	quit := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-done:
			cancel()
		case <-quit:
		}
	}()
	return func() {
		close(quit)
		<-finished
	}
}

// vmmLog returns the newest part of the VMM's own log. The guest can't write there; a VMM that was broken into can.
func (d *driver) vmmLog(record *state.Record) string {
	f, err := d.place(record).openLog()
	if err != nil {
		return ""
	}
	defer f.Close()
	return tail(f, logKept)
}

// keepLog copies the log out of the place, which is removed with the run.
func (d *driver) keepLog(record *state.Record) {
	log := d.vmmLog(record)
	path := filepath.Join(d.state.Volatile(record.UID), "firecracker.log")
	err := os.Remove(path) // whatever stands there: it is made anew
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.WriteFile(path, []byte(log), 0o600)
	}
	if err != nil && log != "" {
		d.log.Warn("the VMM's log is lost", "uid", record.UID, "error", err)
	}
}

// lastWords returns what the VMM said last: its errors, else the end of its log.
func (d *driver) lastWords(record *state.Record) string {
	words := strings.TrimSpace(d.stderr(record))
	if words == "" {
		words = strings.TrimSpace(d.vmmLog(record))
		words = words[max(0, len(words)-wordsKept):]
	}
	return words
}

// stderr returns the end of what the VMM wrote to its standard error.
func (d *driver) stderr(record *state.Record) string {
	f, err := os.Open(stderrPath(d.state.Volatile(record.UID)))
	if err != nil {
		return ""
	}
	defer f.Close()
	return tail(f, wordsKept)
}

func tail(f *os.File, most int64) string {
	if info, err := f.Stat(); err == nil && info.Size() > most {
		f.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, most))
	return string(text)
}
