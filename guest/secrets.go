package guest

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// SetSecret puts a secret where commands in the guest find it: the file /run/microvm/secrets/NAME, which root alone can read, and which is in the guest's memory and on no
// disk. One of that name is replaced at once. No error has the value.
//
// A name is 1 to 64 of a-z, A-Z, 0-9, _ and -. A secret is at most 64 KiB, and 64 are kept: one more is microvm.ErrBusy. They are gone when the machine ends; a snapshot,
// which has the guest's memory, has them. ErrUnsupported when the agent is too old.
func SetSecret(ctx context.Context, d Dialer, name string, value []byte) error {
	if err := checkSecret(name); err != nil {
		return fmt.Errorf("set secret: %w", err)
	}
	if len(value) > wire.MaxSecret {
		return fmt.Errorf("set secret %s: %w: %d bytes are more than %d", name, microvm.ErrInvalid, len(value), wire.MaxSecret)
	}
	if err := call(ctx, d, "PUT", wire.PathSecrets+"/"+name, verbatim(value), nil); err != nil {
		return fmt.Errorf("set secret %s: %w", name, explain(ctx, d, err, wire.FeatureSecrets))
	}
	return nil
}

// DeleteSecret overwrites and removes a secret. ErrNotFound when there is none of that name.
func DeleteSecret(ctx context.Context, d Dialer, name string) error {
	if err := checkSecret(name); err != nil {
		return fmt.Errorf("delete secret: %w", err)
	}
	if err := call(ctx, d, "DELETE", wire.PathSecrets+"/"+name, nil, nil); err != nil {
		return fmt.Errorf("delete secret %s: %w", name, explain(ctx, d, err, wire.FeatureSecrets))
	}
	return nil
}

// ListSecrets returns the secrets' names, in order. Nothing tells a value.
func ListSecrets(ctx context.Context, d Dialer) ([]string, error) {
	var all wire.Secrets
	if err := call(ctx, d, "GET", wire.PathSecrets, nil, &all); err != nil {
		return nil, fmt.Errorf("list secrets: %w", explain(ctx, d, err, wire.FeatureSecrets))
	}
	for _, name := range all.Names {
		if !wire.ValidSecret(name) {
			return nil, fmt.Errorf("list secrets: %w: name %q", ErrAgent, clean(name))
		}
	}
	return all.Names, nil
}

func checkSecret(name string) error {
	if !wire.ValidSecret(name) {
		return &microvm.FieldError{Field: "name", Value: name, Reason: "must be 1 to 64 of a-z, A-Z, 0-9, _ and -"}
	}
	return nil
}
