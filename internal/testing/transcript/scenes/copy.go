//go:build linux

package scenes

import (
	"context"
	"os"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Copy are scenes of files.
func Copy() []Scene {
	return []Scene{
		{"a file that is written", "copy", func(ctx context.Context, d guest.Dialer, dir string) error {
			return guest.WriteFile(ctx, d, dir+"/w", []byte("written"), 0o640)
		}},
		{"a file that is read", "copy", func(ctx context.Context, d guest.Dialer, dir string) error {
			text, err := guest.ReadFile(ctx, d, dir+"/src/f")
			return expect(string(text), "content", err)
		}},
		{"a file that is looked at", "copy", func(ctx context.Context, d guest.Dialer, dir string) error {
			info, err := guest.Stat(ctx, d, dir+"/src/f")
			return expect(info.Name, "f", err)
		}},
		{"a tree to the guest", "copy", func(ctx context.Context, d guest.Dialer, dir string) error {
			src, err := tree()
			defer os.RemoveAll(src)
			if err != nil {
				return err
			}
			return guest.CopyTo(ctx, d, src, dir+"/there", nil)
		}},
		{"a tree from the guest", "copy", func(ctx context.Context, d guest.Dialer, dir string) error {
			dst, err := os.MkdirTemp("", "scene-")
			defer os.RemoveAll(dst)
			if err != nil {
				return err
			}
			if err := guest.CopyFrom(ctx, d, dir+"/src", dst+"/x", nil); err != nil {
				return err
			}
			text, err := os.ReadFile(dst + "/x/f")
			return expect(string(text), "content", err)
		}},
	}
}

// tree makes a small tree on the host.
func tree() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "scene-"); err != nil {
		return "", err
	}
	return dir, os.WriteFile(dir+"/a", []byte("from the host"), 0o600)
}
