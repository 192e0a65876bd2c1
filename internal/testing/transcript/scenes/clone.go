//go:build linux

package scenes

import (
	"context"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Clone are scenes of snapshots, of a system that is not the agent's.
func Clone() []Scene {
	return []Scene{
		{"a freeze that is denied", "clone", func(ctx context.Context, d guest.Dialer, _ string) error {
			return denied(guest.Freeze(ctx, d, "scene", time.Minute))
		}},
		{"a thaw that is denied", "clone", func(ctx context.Context, d guest.Dialer, _ string) error { return denied(guest.Thaw(ctx, d, "scene")) }},
		{"a renewal that is denied", "clone", func(ctx context.Context, d guest.Dialer, _ string) error {
			_, err := guest.Renew(ctx, d, guest.Renewal{
				Token: "scene", Generation: "second", MachineID: "0123456789abcdef0123456789abcdef", Hostname: "scene", Env: map[string]string{"SCENE": "played"}, Secrets: map[string][]byte{"word": []byte("sesame")},
			})
			return denied(err)
		}},
	}
}
