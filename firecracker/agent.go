//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/console"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const defaultAgentTimeout = time.Minute

// dialer is one machine as package guest wants it.
type dialer struct {
	driver *driver
	uid    string
}

func (d dialer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	return d.driver.Dial(ctx, d.uid, port)
}

// awaitAgent waits until the agent answers. When it does not, the machine is put back to where Start found it, unless somebody else
// has ended this run meanwhile.
func (d *driver) awaitAgent(ctx context.Context, b *boot, o microvm.StartOptions) error {
	timeout := o.AgentTimeout
	if timeout <= 0 {
		timeout = defaultAgentTimeout
	}
	begin := time.Since(b.state.Started)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	go func() { // ends with waiting
		select {
		case <-b.process.Done():
			cancel()
		case <-waiting.Done():
		}
	}()
	if err := guest.Wait(waiting, dialer{d, b.record.UID}); err != nil {
		return errors.Join(d.agentError(ctx, b.record, b.process, timeout, err), d.takeBack(b))
	}
	mark := microvm.Mark{Name: "agent", Begin: begin, End: time.Since(b.state.Started)}
	if err := d.noteAgent(ctx, b, mark); err != nil { // it runs, whatever is written down of it
		d.log.Warn("the agent is not on the time line", "uid", b.record.UID, "error", err)
	}
	return nil
}

// agentError says why the agent does not answer.
func (d *driver) agentError(ctx context.Context, record *state.Record, process *vmm.Process, timeout time.Duration, err error) error {
	if ended(process) {
		<-d.drained(record.UID)
		return d.explain(record, fmt.Errorf("%w before its agent answered%s", microvm.ErrExited, d.consoleWords(ctx, record)))
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("the guest's agent does not answer within %v: %w%s", timeout, err, d.consoleWords(ctx, record))
}

// consoleWords are the end of the guest's console, quoted: the agent says there why it gives up. A machine that goes back to where it was has no console to read.
func (d *driver) consoleWords(ctx context.Context, record *state.Record) string {
	reader, err := console.Open(ctx, d.state.Volatile(record.UID), console.ReadOptions{Tail: wordsKept})
	if err != nil {
		return ""
	}
	defer reader.Close()
	text, _ := io.ReadAll(io.LimitReader(reader, wordsKept))
	if words := strings.TrimSpace(string(text)); words != "" {
		return fmt.Sprintf("; the guest's last words were %q", words)
	}
	return ""
}

// noteAgent puts the agent on the time line, if the run still goes on.
func (d *driver) noteAgent(ctx context.Context, b *boot, mark microvm.Mark) error {
	lock, err := d.state.Lock(ctx, b.record.UID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	run, err := d.state.ReadRun(b.record.UID)
	if err != nil || !b.same(run) {
		return err
	}
	return lock.Commit(append(run.Timeline, mark))
}

// takeBack ends the run that Start began. It is not the caller's to cancel any more.
func (d *driver) takeBack(b *boot) error {
	lock, err := d.state.Lock(context.Background(), b.record.UID)
	if errors.Is(err, microvm.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	b.lock = lock
	run, err := d.state.ReadRun(b.record.UID)
	if err == nil && run == nil {
		return b.unsettle()
	}
	if err != nil || !b.same(run) {
		return err
	}
	return errors.Join(b.uncommit(), b.takeDown())
}

// unsettle is takeBack where the watch was faster to see the run's end. An end that somebody asked for stays.
func (b *boot) unsettle() error {
	begun, ok := b.driver.state.Begun(b.record.UID)
	exit, err := b.driver.state.ReadExit(b.record.UID)
	if err != nil || !ok || !begun.Equal(b.state.Started) || exit == nil || exit.Reason == microvm.ReasonStopped || exit.Reason == microvm.ReasonForced {
		return err
	}
	return b.uncommit()
}
