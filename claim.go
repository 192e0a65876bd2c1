package microvm

import (
	"context"
	"fmt"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// ClaimOptions are the options of Runtime.Claim. Nil, or the zero value, is the default.
type ClaimOptions struct {
	// Change is made before the machine goes on: see VM.Update.
	Change Change
	// Hostname of the guest. Optional: the machine's new name, with '-' for what a host name can't have.
	Hostname string
	// Env and Secrets are set in the guest before it goes on, beside those that it has. Their names and sizes are as for guest.SetEnv and guest.SetSecret.
	Env, Secrets map[string]string
	// AgentTimeout is how long the guest's agent may take, at most 15 minutes. Optional: a minute.
	AgentTimeout time.Duration
}

// Validate says whether the options make sense by themselves: nil, or a *[FieldError].
func (o *ClaimOptions) Validate() error {
	if o.Hostname != "" && !wire.ValidHostname(o.Hostname) {
		return &FieldError{Field: "ClaimOptions.Hostname", Value: o.Hostname, Reason: hostnameRule}
	}
	if o.AgentTimeout < 0 || o.AgentTimeout > maxRenewal {
		return &FieldError{Field: "ClaimOptions.AgentTimeout", Value: o.AgentTimeout, Reason: fmt.Sprintf("must be 0 to %v", maxRenewal)}
	}
	if bad := checkKept("ClaimOptions", o.Env, o.Secrets); bad != nil {
		return bad
	}
	return nil
}

// Claim hands out a machine that was restored with RestoreOptions.Hold: it gets another name, goes on, and its agent sets the clock, the host name, environment and secrets, and runs the
// hooks, before Claim returns. Only one of those who claim a machine gets it, in whatever process: the others get [ErrNotFound], or [ErrState]. When Claim fails once the guest may have gone on,
// nothing is left of the machine; before, it is held as it was. [ErrExists] when the new name is taken.
func (r *Runtime) Claim(ctx context.Context, held, name string, options *ClaimOptions) (*VM, Evidence, error) {
	o := value(options)
	if err := ValidateName(name); err != nil {
		return nil, nil, opError("claim", held, err)
	}
	if err := o.Validate(); err != nil {
		return nil, nil, opError("claim", held, err)
	}
	claimer, uid, err := r.claimer(ctx, held)
	if err != nil {
		return nil, nil, opError("claim", held, err)
	}
	evidence, err := claimer.Claim(ctx, uid, held, name, o)
	if err != nil {
		return nil, evidence, opError("claim", held, err)
	}
	return &VM{driver: r.driver, uid: uid}, evidence, nil
}

// Discard destroys a machine of this name, unless somebody has it: one that is held, or that does not run. Another is [ErrState].
func (r *Runtime) Discard(ctx context.Context, held string) error {
	claimer, uid, err := r.claimer(ctx, held)
	if err == nil {
		err = claimer.Discard(ctx, uid, held)
	}
	return opError("discard", held, err)
}

func (r *Runtime) claimer(ctx context.Context, held string) (Claimer, string, error) {
	claimer, ok := r.driver.(Claimer)
	if !ok {
		return nil, "", ErrUnsupported
	}
	uid, err := r.driver.Resolve(ctx, held)
	return claimer, uid, err
}
