//go:build linux

package firecracker

import (
	"context"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	// booted is what the VMM's log says once all that its configuration file says is done (Firecracker's src/firecracker/src/main.rs).
	booted = "Successfully started microvm"
	// stopping is what the VMM's log says when its guest has ended, or it ends for a reason of its own, which its status then tells (src/vmm/src/lib.rs).
	stopping = "Vmm is stopping."
	// bootedPatience is how long booted is waited for. A VMM whose log says it otherwise is asked then.
	bootedPatience = time.Second
)

// bootAgain boots once more where the cause of a failure was lost. A VMM is asked as soon as its API answers; when its configuration then turns out to be bad, the
// API's thread panics over the question, and the VMM dies without a word. The second time it is not asked before it has booted.
func (b *boot) bootAgain(ctx context.Context) error {
	again := &boot{driver: b.driver, lock: b.lock, record: b.record, name: b.name, place: b.place, program: b.program, before: b.before, exit: b.exit, patient: true}
	err := again.run(ctx)
	*b = *again
	return err
}

// mute says whether a VMM ended by itself and did not say why: its causes go to its standard error.
func (b *boot) mute(status vmm.Status) bool {
	return status.Known && status.Signal == 0 && status.Code != 0 && strings.TrimSpace(b.driver.stderr(b.record)) == ""
}

// awaitBoot waits until the VMM's log says that it has done what its configuration file says, or ctx ends.
func (b *boot) awaitBoot(ctx context.Context) {
	for begin := time.Now(); time.Since(begin) < bootedPatience && !strings.Contains(b.driver.vmmLog(b.record), booted); {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}
