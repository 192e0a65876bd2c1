package guest

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// MaxLease bounds the lease of [Freeze].
const MaxLease = wire.MaxLease

// Freeze flushes the guest's file systems and makes everything stand that was started through the agent, with all that came of it, until [Thaw] or [Renew] of the same token, or for the
// lease. It is for snapshots, which the driver takes; a command that is started meanwhile waits. A token is 1 to 64 of a-z, A-Z and 0-9. ErrUnsupported when the agent is too old,
// ErrDenied when its kernel has no cgroups that can be frozen, microvm.ErrBusy when something does not stand within 5 seconds: all goes on then.
func Freeze(ctx context.Context, d Dialer, token string, lease time.Duration) error {
	if err := call(ctx, d, "POST", wire.PathFreeze, wire.Freeze{Token: token, Lease: lease}, nil); err != nil {
		return fmt.Errorf("freeze: %w", explain(ctx, d, err, wire.FeatureClone))
	}
	return nil
}

// Thaw lets go on what [Freeze] made stand. With another token it does nothing.
func Thaw(ctx context.Context, d Dialer, token string) error {
	if err := call(ctx, d, "POST", wire.PathThaw, wire.Thaw{Token: token}, nil); err != nil {
		return fmt.Errorf("thaw: %w", explain(ctx, d, err, wire.FeatureClone))
	}
	return nil
}

// Renewal says what a machine that is restored from a snapshot is to be. What is empty stays as it is in the snapshot.
type Renewal struct {
	Token      string            // Of the [Freeze] before the snapshot.
	Generation string            // 1 to 64 of a-z, A-Z and 0-9 that no other machine of the snapshot has; the guest finds it in /run/microvm/generation.
	MachineID  string            // 32 lowercase hexadecimal digits: see machine-id(5).
	Hostname   string            // As for SetHostname.
	Env        map[string]string // As for SetEnv.
	Secrets    map[string][]byte // As for SetSecret.
	// Hold leaves the workload, and the hooks, to a renewal that comes when the machine is handed out.
	Hold bool
}

// entropyBytes is how many random bytes a renewal has.
const entropyBytes = 64

// Renew makes a restored guest its own: it sets the clock to the host's, by no more than half of the way there and back, and 50 ms, off, gives the kernel's generator new random bytes, sets what the renewal says, makes an SSH server's keys anew, runs
// the hooks in /etc/microvm/resume.d, and lets the workload go on, unless something mandatory failed. The evidence says what was done. It may be called again when the answer was lost.
func Renew(ctx context.Context, d Dialer, r Renewal) (microvm.Evidence, error) {
	entropy := make([]byte, entropyBytes)
	defer clear(entropy)
	rand.Read(entropy)
	var sent time.Time
	body := late(func() any {
		sent = time.Now()
		return wire.Renew{
			Token: r.Token, Unix: time.Duration(sent.UnixNano()), Entropy: entropy, MachineID: r.MachineID, Hostname: r.Hostname, Generation: r.Generation, Env: r.Env, Secrets: r.Secrets, Hold: r.Hold,
		}
	})
	var answer wire.Renewed
	if err := call(ctx, d, "POST", wire.PathRenew, body, &answer); err != nil {
		return nil, fmt.Errorf("renew: %w", explain(ctx, d, err, wire.FeatureClone))
	}
	if len(answer.Items) > wire.MaxItems {
		return nil, fmt.Errorf("renew: %w: %d items", ErrAgent, len(answer.Items))
	}
	again := ""
	if !r.Hold && time.Since(sent) > quickTrip { // the way there may have been slow
		again = setClockAgain(ctx, d)
	}
	evidence := make(microvm.Evidence, 0, len(answer.Items))
	for _, item := range answer.Items {
		one := microvm.EvidenceItem{Item: clean(item.Item), Done: item.Done, Mandatory: item.Mandatory, Detail: clean(item.Detail), Error: clean(item.Error)}
		if item.Item == "clock" && item.Done {
			one.Detail += again
		}
		evidence = append(evidence, one)
	}
	return evidence, nil
}

const (
	// quickTrip is how long there and back may take for a clock to be set well enough: it is late by the way there.
	quickTrip = 50 * time.Millisecond
	// clockTries is how often a quicker one is tried for.
	clockTries = 10
)

// setClockAgain sets the clock of a guest until that took no longer than a quick trip, each time by half of the quickest before that ahead, and returns what is to be told of it. A guest that does not
// let it has its clock as it was set first.
func setClockAgain(ctx context.Context, d Dialer) (told string) {
	quickest := time.Duration(0)
	for range clockTries {
		var begin time.Time
		body := late(func() any {
			begin = time.Now()
			return wire.Clock{Unix: time.Duration(begin.Add(quickest / 2).UnixNano())}
		})
		if err := call(ctx, d, "POST", wire.PathClock, body, &wire.Skew{}); err != nil {
			return told
		}
		trip := time.Since(begin)
		told = fmt.Sprintf(", and set again: there and back took %v", trip.Round(time.Microsecond))
		if trip <= quickTrip {
			return told
		}
		if quickest == 0 || trip < quickest {
			quickest = trip
		}
	}
	return told
}
