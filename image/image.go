// Package image makes base images: read-only ext4 file systems that many machines share. It needs neither root nor a mount.
//
// There are only three types that matter. A [Base] is such a file; [FromTar] and [FromDir] make one. A [Store] is a directory of images: [Store.Pull] gets one from a registry,
// [Store.Import] makes one of an OCI layout, of what docker save wrote, or of a root file system. An [Image] is what they return: a base, and the [Config] that says what to run in it.
//
// # Caveats
//
// A base has no journal and no free space. Mount it read-only; machines write to a layer over it.
//
// The same files make the same base: of a file's times only that of its last change is kept.
//
// The base of an image is equal to what a tar extractor run by root would make of the layers: names, types, contents, modes, owners, times from 1901 to 2310 to the nanosecond,
// devices, hard links, and extended attributes: user, trusted, security, and access control lists. A file has at most twelve of them in about 4 KiB. There is a directory lost+found
// more, and labels of SELinux, which are those of the host that the layer was made on, are left out. A sparse file is whole in the base; its zeros cost nothing on the host's disk.
//
// An image is known by its manifest's digest. Where there is no manifest, one is made of the digests of what there is, so that the same input is the same image.
//
// Credentials for registries are Docker's (~/.docker/config.json, $DOCKER_CONFIG, credential helpers), or Podman's.
//
// FromDir, and Import of a directory, take owners, modes, links, devices and extended attributes as they are on disk: a directory that was unpacked without root has the wrong owners,
// and a tar is the better source.
package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// maxDisk bounds a base in bytes. It also fixes the size of its group table, so it is no larger than needed.
const maxDisk = 64 << 30

// Base is a base image's file.
type Base struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // 64 lowercase hexadecimal digits.
	Size   int64  `json:"size"`   // Bytes. On disk it may take less.
}

// FromTar makes a base at path from a tar stream: a file system's files with "/" as "./" or "". The file appears when it is whole and durable; when FromTar returns an
// error there is none. What it makes has at most a million files and 256 MiB of names, link targets and extended attributes, and fits 64 GiB, with no file of more than 40 GiB;
// else it is [ErrLimit].
func FromTar(ctx context.Context, r io.Reader, path string) (Base, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return Base{}, fmt.Errorf("image: %w", err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	limits := Limits{}.resolve()
	limits.Bytes = maxDisk
	err = tar2ext4.ConvertTarToExt4(newEntryReader(ctx, r, limits), temp, tar2ext4.MaximumDiskSize(maxDisk))
	if err == nil {
		err = fillBitmaps(temp)
	}
	if err != nil {
		return Base{}, fmt.Errorf("image %s: %w", path, err)
	}
	return finish(temp, path)
}

// finish hashes the file, makes it read-only and durable, and gives it its name.
func finish(f *os.File, path string) (Base, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Base{}, err
	}
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return Base{}, err
	}
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return Base{}, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return Base{}, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return Base{}, err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return Base{}, err
	}
	return Base{Path: path, SHA256: hex.EncodeToString(hash.Sum(nil)), Size: size}, nil
}

// contextReader ends a conversion when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// FromDir makes a base at path from a directory; see [FromTar].
func FromDir(ctx context.Context, dir, path string) (Base, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return Base{}, fmt.Errorf("image: %s is no directory", dir)
	}
	r, w := io.Pipe()
	defer r.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(writeTar(w, dir))
	}()
	base, err := FromTar(ctx, r, path)
	r.Close()
	<-done
	return base, err
}

func writeTar(w io.Writer, dir string) error {
	t := &treeWriter{tar: tar.NewWriter(w), dir: dir, seen: map[inode]string{}}
	if err := filepath.WalkDir(dir, t.add); err != nil {
		return err
	}
	return t.tar.Close()
}
