//go:build linux

package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// Store is a directory of images. Any number of processes may use it at once. It holds no lock and no descriptor.
type Store struct {
	dir imagestore.Dir

	pause, stall time.Duration // Before the first new attempt of a download; until a download that gets nothing is one that failed.
	jobs         int           // Layers that are downloaded at once.
}

// Open returns the store in a directory, which is made when something is put into it. The driver's is STATE_DIR/images.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	return &Store{dir: imagestore.Dir(dir), pause: 200 * time.Millisecond, stall: time.Minute, jobs: 4}, err
}

// Image is an image in a store. Its JSON is stable.
type Image struct {
	References []string  `json:"references"` // Sorted, such as "debian:12". Empty when no name means the image.
	Digest     string    `json:"digest"`     // Of the manifest: "sha256:" and 64 lowercase hexadecimal digits.
	Platform   string    `json:"platform"`   // Such as "linux/amd64".
	Created    time.Time `json:"created"`    // When it came into the store.
	Config     Config    `json:"config"`
	InUse      bool      `json:"in_use"` // Machines, or somebody else, have linked the base.
	Base
}

// Config is what an image's maker says about running it. All of it is optional.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // KEY=VALUE.
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // Sorted, such as "80/tcp".
	Labels       map[string]string `json:"labels,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
}

// Stage is what an operation is doing.
type Stage string

// The stages of an operation. Each of them begins with Done 0 and ends with Done as large as Total, unless there is an error.
const (
	StageDownload Stage = "download" // Of one layer. Bytes.
	StageRead     Stage = "read"     // Of one layer, or what becomes one, without its content. Uncompressed bytes; Total is not known before its end.
	StageBuild    Stage = "build"    // Of the base. Bytes of files' contents.
)

// Progress is how far a stage has come.
type Progress struct {
	Stage Stage
	Layer string // The digest of the layer. Empty where it is about all of them.
	Done  int64
	Total int64 // 0 where it is not known.
}

// Get returns the image that a text means: a reference, such as "debian:12", or a digest, or twelve or more of its first digits. It answers microvm.ErrNotFound or microvm.ErrInvalid.
func (s *Store) Get(text string) (Image, error) {
	entry, err := imagestore.Lookup(string(s.dir), text)
	return imageOf(entry), err
}

// List returns all images, newest first. With an error it returns those that can be read.
func (s *Store) List() ([]Image, error) {
	entries, err := s.dir.List()
	images := make([]Image, 0, len(entries))
	for _, entry := range entries {
		images = append(images, imageOf(entry))
	}
	return images, err
}

func imageOf(e imagestore.Entry) Image {
	return Image{
		References: e.References, Digest: e.Digest, Platform: e.Platform, Created: e.Created, Config: Config(e.Config), InUse: e.InUse,
		Base: Base{Path: e.Path, SHA256: e.SHA256, Size: e.Size},
	}
}

// Remove takes a reference from the image that it means, and removes the image when that was its last one. A digest removes the image with all its references. Machines that were made
// of the image live on; to make another the image is needed again.
func (s *Store) Remove(ctx context.Context, text string) error {
	image, err := s.Get(text)
	if errors.Is(err, imagestore.ErrDamaged) { // goes all the same
		image.Digest, err = text, nil
	}
	if err != nil {
		return err
	}
	if image.Digest == "" {
		return fmt.Errorf("image %s: %w: it is in no store", text, microvm.ErrInvalid)
	}
	unlock, err := s.dir.Lock(ctx, image.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	if now, err := s.Get(text); err == nil && now.Digest != image.Digest {
		return fmt.Errorf("remove image %s: %w: it has just become another", text, microvm.ErrBusy)
	}
	if name, err := imagestore.Normalize(text); err == nil {
		if err := s.dir.Unname(ctx, name); err != nil {
			return err
		}
		if now, err := s.dir.Get(image.Digest); err == nil && len(now.References) > 0 && len(now.References) < len(image.References) {
			return nil
		}
	}
	if err := s.dir.UnnameAll(ctx, image.Digest); err != nil {
		return err
	}
	return s.dir.Drop(image.Digest)
}

// Pruned is what Prune did.
type Pruned struct {
	Images []Image `json:"images"` // That were removed.
	Bytes  int64   `json:"bytes"`  // Of disk space that came back, about.
}

// Prune removes the images that keep is false for, downloads that nobody goes on with, and what interrupted builds left. A nil keep keeps images with a reference. An image that is in
// use stays in any case: as long as a machine has its base, to remove it frees nothing. Images that are being built meanwhile stay.
func (s *Store) Prune(ctx context.Context, keep func(Image) bool) (Pruned, error) {
	var p Pruned
	images, err := s.List()
	errs := []error{err}
	for _, image := range images {
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		if image.InUse || keep == nil && len(image.References) > 0 || keep != nil && keep(image) {
			continue
		}
		size := allocated(image.Path)
		removed, err := s.pruneImage(ctx, image)
		if removed {
			p.Images, p.Bytes = append(p.Images, image), p.Bytes+size
		}
		errs = append(errs, err)
	}
	bytes, err := s.pruneBlobs()
	p.Bytes += bytes
	return p, errors.Join(append(errs, err, s.pruneBuilds())...)
}

func (s *Store) pruneImage(ctx context.Context, image Image) (bool, error) {
	unlock, err := s.dir.TryLock(image.Digest)
	if errors.Is(err, microvm.ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	if now, err := s.dir.Get(image.Digest); err != nil || now.InUse || len(now.References) != len(image.References) { // somebody wants it after all
		return false, nil
	}
	if err := s.dir.UnnameAll(ctx, image.Digest); err != nil {
		return false, err
	}
	return true, s.dir.Drop(image.Digest)
}

// pruneBuilds removes what builders left that were killed.
func (s *Store) pruneBuilds() error {
	digests, err := s.dir.Leftovers()
	errs := []error{err}
	for _, digest := range digests {
		unlock, err := s.dir.TryLock(digest)
		if err != nil {
			continue // it is being built
		}
		errs = append(errs, s.dir.Abandon(digest))
		unlock()
	}
	return errors.Join(errs...)
}

// Verify reads an image's base and compares it with what was written down when it was built: ErrDigest when it is another.
func (s *Store) Verify(ctx context.Context, text string) error {
	image, err := s.Get(text)
	if err != nil {
		return err
	}
	if image.SHA256 == "" {
		return fmt.Errorf("image %s: %w: it is in no store", text, microvm.ErrInvalid)
	}
	f, err := os.Open(image.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, &contextReader{ctx, f}); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != image.SHA256 {
		return fmt.Errorf("image %s: %w: sha256 of %s is %s, and was %s (microvm image rm %s, and get it again)", text, ErrDigest, image.Path, sum, image.SHA256, short(image.Digest))
	}
	return nil
}

// short returns what people say instead of a digest.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}
