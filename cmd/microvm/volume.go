//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
)

const volumeUsage = "SRC:DST[:out], repeatable: copy a file or directory of the host into the machine before the command; with :out its DST is copied back to SRC afterwards"

// volume is a path of the host that a machine has a copy of. It is no mount: nothing is shared while the machine runs.
type volume struct {
	host, guest string
	back        bool
}

// parseVolume reads SRC:DST[:out]. A SRC is a path: volumes with names are a thing of Docker's.
func parseVolume(text string) (volume, error) {
	parts := strings.Split(text, ":")
	bad := func(reason string) (volume, error) {
		return volume{}, usageError{fmt.Errorf("--volume %q: %s (it is SRC:DST, or SRC:DST:out)", text, reason)}
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return bad("two paths are needed")
	}
	v := volume{host: parts[0], guest: path.Clean(parts[1])}
	switch {
	case !strings.ContainsRune(v.host, '/') && v.host != "." && v.host != "..":
		return bad("SRC must be a path of the host, such as ./" + v.host)
	case !path.IsAbs(v.guest) || v.guest == "/":
		return bad("DST must be an absolute path, and not the root")
	}
	if len(parts) == 3 {
		switch parts[2] {
		case "out":
			v.back = true
		case "ro":
		case "rw":
			return bad("changes come back only at the end, and only with :out")
		default:
			return bad(fmt.Sprintf("%q is not known", parts[2]))
		}
	}
	return v, nil
}

func parseVolumes(texts []string) (all []volume, err error) {
	for _, text := range texts {
		v, err := parseVolume(text)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// put copies the volume in. What DST is in is made as it must.
func (v volume) put(ctx context.Context, d guest.Dialer) error {
	source, err := filepath.EvalSymlinks(v.host)
	if err != nil {
		return err
	}
	if err := makeDirs(ctx, d, path.Dir(v.guest)); err != nil {
		return err
	}
	return guest.CopyTo(ctx, d, source, v.guest, &guest.CopyOptions{Exact: true})
}

// get copies the volume back: files that the command has removed stay.
func (v volume) get(ctx context.Context, d guest.Dialer) error {
	target, err := filepath.EvalSymlinks(v.host)
	if err != nil {
		return err
	}
	return guest.CopyFrom(ctx, d, v.guest, target, &guest.CopyOptions{Exact: true})
}

// makeDirs makes those of a directory's parents, and itself, that the guest lacks. It needs no program there.
func makeDirs(ctx context.Context, d guest.Dialer, dir string) error {
	var missing []string
	for dir != "/" {
		_, err := guest.Stat(ctx, d, dir)
		if err == nil {
			break
		}
		if !errors.Is(err, guest.ErrNotFound) {
			return err
		}
		missing = append(missing, path.Base(dir))
		dir = path.Dir(dir)
	}
	if len(missing) == 0 {
		return nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	name := ""
	for _, part := range slices.Backward(missing) {
		name = path.Join(name, part)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Now(), Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return guest.WriteTar(ctx, d, dir, &b, nil)
}
