//go:build linux

package firecracker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	// freezeLease is how long a workload stands when nobody lets it go on: longer than a restored machine may take to become its own.
	freezeLease = 20 * time.Minute
	// freezePatience is how long the agent may take to make it stand, and to flush what it has written.
	freezePatience = 30 * time.Second
	// thawPatience is how long it may take to let it go on.
	thawPatience = 30 * time.Second
	// thawAttempt is how long one question may take.
	thawAttempt = 3 * time.Second
	// renewAttempt is how long one question of a renewal may take: hooks are programs.
	renewAttempt = 20 * time.Second
)

// freeze has the agent make the workload stand, so that nothing of it goes on in a machine that is restored before that is its own. Where it can't the snapshot says why.
func (t *taking) freeze(ctx context.Context, running bool) error {
	if !running {
		t.manifest.Unfrozen = "the machine was paused"
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	t.frozen = true // also when the answer is lost
	err := guest.Freeze(ctx, dialer{t.driver, t.machine.record.UID}, t.draft.UID(), freezeLease)
	if errors.Is(err, microvm.ErrUnsupported) || errors.Is(err, guest.ErrDenied) {
		t.frozen, t.manifest.Unfrozen = false, err.Error()
		return nil
	}
	return err
}

// thaw lets the workload go on, whatever the caller's context says.
func (t *taking) thaw() error {
	t.frozen = t.frozen && !t.driver.letWorkloadGoOn(t.machine.record.UID, t.draft.UID())
	return nil
}

// letWorkloadGoOn has the agent let go on what stands for a snapshot, and says whether that is done. A VMM has cut all connections when it has written one, and may lose the first that comes
// after. What is not told is told by who works on the machine next, or goes on when its lease has run out.
func (d *driver) letWorkloadGoOn(uid, token string) bool {
	ctx, cancel := context.WithTimeout(d.life, thawPatience)
	defer cancel()
	err := persist(ctx, thawAttempt, func(ctx context.Context) error { return guest.Thaw(ctx, dialer{d, uid}, token) })
	if err != nil {
		d.log.Warn("what was started in a machine stands still for a snapshot", "uid", uid, "for", freezeLease, "error", err)
	}
	return err == nil || final(err)
}

// persist asks an agent again, each time for so long, until it answers, or its answer is final.
func persist(ctx context.Context, attempt time.Duration, ask func(context.Context) error) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		asking, cancel := context.WithTimeout(ctx, attempt)
		err := ask(asking)
		cancel()
		if err == nil || final(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// final says whether asking again is of no use.
func final(err error) bool {
	for _, sentinel := range []error{microvm.ErrUnsupported, microvm.ErrIncompatible, microvm.ErrInvalid, microvm.ErrExited, microvm.ErrState, microvm.ErrNotFound, microvm.ErrClosed, guest.ErrDenied} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// renew has the agent make the machine its own, and lets its workload go on, unless the machine is held.
func (r *restoration) renew(ctx context.Context) (err error) {
	of := renewing{r.record, r.boot.process, r.options.AgentTimeout}
	if r.driver.options.thawn {
		return r.driver.askAgent(ctx, of, func(ctx context.Context) error {
			return guest.Thaw(ctx, newborn{r.driver, r.record}, r.manifest.Token())
		})
	}
	r.evidence, err = r.driver.renewGuest(ctx, of, r.renewal())
	return err
}

// renewing is a machine that is to be its own, and how long its agent may take for that; 0 is the default.
type renewing struct {
	record  *state.Record
	process *vmm.Process
	timeout time.Duration
}

// renewGuest has the agent do what a renewal says. What is mandatory and failed is an error.
func (d *driver) renewGuest(ctx context.Context, of renewing, renewal guest.Renewal) (evidence microvm.Evidence, err error) {
	err = d.askAgent(ctx, of, func(ctx context.Context) (err error) {
		evidence, err = guest.Renew(ctx, newborn{d, of.record}, renewal)
		return err
	})
	for _, item := range evidence.Failed() {
		if err == nil && item.Mandatory {
			err = fmt.Errorf("the guest can't be made a machine of its own: %s: %s", item.Item, item.Error)
		}
	}
	return evidence, err
}

// askAgent asks a machine's agent until it answers, its VMM ends, or it has taken too long.
func (d *driver) askAgent(ctx context.Context, of renewing, ask func(context.Context) error) error {
	timeout := cmp.Or(of.timeout, defaultAgentTimeout)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer cancelWhen(cancel, of.process.Done())()
	if err := persist(waiting, renewAttempt, ask); err != nil {
		return d.agentError(ctx, of.record, of.process, timeout, err)
	}
	return nil
}

// newborn is a machine whose record does not yet say whom its VMM runs as.
type newborn struct {
	driver *driver
	record *state.Record
}

func (n newborn) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	return n.driver.connect(ctx, n.record, port)
}

func (r *restoration) renewal() guest.Renewal {
	id := make([]byte, 16)
	rand.Read(id)
	return guest.Renewal{
		Token: r.manifest.Token(), Generation: r.record.UID, MachineID: hex.EncodeToString(id), Hostname: cmp.Or(r.options.Hostname, hostnameOf(r.name), r.record.UID), Env: r.options.Env, Secrets: bytesOf(r.options.Secrets),
		Hold: r.options.Hold,
	}
}

// keeps refuses variables and secrets of a guest that has nobody to keep them.
func keeps(agent bool, of string, env, secrets map[string]string) error {
	for field, values := range map[string]map[string]string{".Env": env, ".Secrets": secrets} {
		if len(values) > 0 && !agent {
			return &microvm.FieldError{Field: of + field, Value: len(values), Reason: "must be empty: the guest has no agent that could keep them"}
		}
	}
	return nil
}

func bytesOf(secrets map[string]string) map[string][]byte {
	all := map[string][]byte{}
	for name, value := range secrets {
		all[name] = []byte(value)
	}
	return all
}

// hostnameOf makes a host name of a machine's name, an empty one where nothing of that can be in it.
func hostnameOf(name string) string {
	return strings.Trim(strings.ReplaceAll(name, "_", "-"), "-.")
}

// pause holds a machine that is its own.
func (r *restoration) pause(ctx context.Context) error {
	b := r.boot
	if err := r.driver.setPaused(ctx, r.record, true); err != nil {
		return err
	}
	b.state.State = microvm.StatePaused
	return b.lock.WriteRun(b.state)
}
