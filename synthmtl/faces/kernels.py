# mypy: disable-error-code="attr-defined, call-overload, index, misc"
# A kernel is written in warp's dialect of Python: its compiler knows what arrays and thread numbers hold, their
# annotations do not.
"""The kernels of the rasteriser: pose, normals, visibility, shading.

Each is launched as (faces, lanes) tasks: a lane takes every ``lanes``-th vertex, triangle or pixel of its face, or a
band of the frame's rows. One lane is fastest on a CPU, where tasks run one after the other; a GPU wants many.
"""

import warp as wp

from synthmtl.faces.head import BROW, CAVITY, EYE, HAIR, IRIS, LIPS, PAINT_SIZE, SHADE, TEETH, TONGUE
from synthmtl.faces.view import BACKGROUND_GRID

wp.config.log_level = wp.LOG_ERROR
wp.set_module_options({"enable_backward": False, "fast_math": True, "optimization_level": 3})


@wp.kernel
def pose(
    shapes: wp.array2d[wp.vec3],
    active: wp.array2d[int],
    coefficients: wp.array2d[float],
    actions: wp.array2d[wp.vec3],
    rotation: wp.array[wp.mat33],
    center: wp.array[wp.vec3],
    scale: wp.array[float],
    place: wp.array[wp.vec3],
    lanes: int,
    points: wp.array2d[wp.vec3],
):
    face, lane = wp.tid()
    for vertex in range(lane, shapes.shape[1], lanes):
        p = shapes[face, vertex]
        for slot in range(active.shape[1]):
            action = active[face, slot]
            if action < 0:
                break
            p = p + coefficients[face, action] * actions[action, vertex]
        seen = wp.vec3(p[0], -p[2], p[1]) - center[face]
        points[face, vertex] = scale[face] * (rotation[face] * seen) + place[face]


@wp.kernel
def normals(
    points: wp.array2d[wp.vec3],
    triangles: wp.array[wp.vec3i],
    lanes: int,
    normals: wp.array2d[wp.vec3],
):
    face, lane = wp.tid()
    for t in range(lane, triangles.shape[0], lanes):
        k = triangles[t]
        origin = points[face, k[0]]
        n = wp.cross(points[face, k[1]] - origin, points[face, k[2]] - origin)
        for corner in range(3):
            wp.atomic_add(normals, face, k[corner], n)


@wp.kernel
def visibility(
    points: wp.array2d[wp.vec3],
    triangles: wp.array[wp.vec3i],
    kind: wp.array[int],
    size: int,
    lanes: int,
    depth: wp.array2d[float],
    seen: wp.array2d[int],
):
    face, lane = wp.tid()
    top = lane * size / lanes
    bottom = (lane + 1) * size / lanes - 1
    for t in range(triangles.shape[0]):
        k = triangles[t]
        p0 = points[face, k[0]]
        p1 = points[face, k[1]]
        p2 = points[face, k[2]]
        area = (p1[0] - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (p1[1] - p0[1])
        if area < -1.0e-9 or (kind[t] == wp.static(TEETH) and area > 1.0e-9):
            x0 = wp.max(int(wp.ceil(wp.min(p0[0], wp.min(p1[0], p2[0])) - 0.5)), 0)
            x1 = wp.min(int(wp.floor(wp.max(p0[0], wp.max(p1[0], p2[0])) - 0.5)), size - 1)
            y0 = wp.max(int(wp.ceil(wp.min(p0[1], wp.min(p1[1], p2[1])) - 0.5)), top)
            y1 = wp.min(int(wp.floor(wp.max(p0[1], wp.max(p1[1], p2[1])) - 0.5)), bottom)
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    u = float(x) + 0.5
                    v = float(y) + 0.5
                    w1 = ((u - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (v - p0[1])) / area
                    w2 = ((p1[0] - p0[0]) * (v - p0[1]) - (u - p0[0]) * (p1[1] - p0[1])) / area
                    w0 = 1.0 - w1 - w2
                    if w0 >= 0.0 and w1 >= 0.0 and w2 >= 0.0:
                        z = w0 * p0[2] + w1 * p1[2] + w2 * p2[2]
                        pixel = y * size + x
                        before = seen[face, pixel]
                        nearer = z < depth[face, pixel]
                        if kind[t] == wp.static(TEETH):
                            # Teeth show through the open mouth only, wherever thin lips would let them poke out.
                            behind = int(-1)  # noqa: UP018 (a dynamic variable for warp)
                            if before >= 0:
                                behind = kind[before]
                            in_mouth = behind == wp.static(TEETH) or behind == wp.static(TONGUE)
                            nearer = behind == wp.static(CAVITY) or (in_mouth and nearer)
                        if nearer:
                            depth[face, pixel] = z
                            seen[face, pixel] = t


@wp.func
def _soft(distance: float):
    # A smooth step from 1 to 0 over 2 mm: how far a painted edge covers the skin.
    t = wp.clamp(0.5 - 0.5 * distance, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@wp.func
def _color(
    points: wp.array2d[wp.vec3],
    normals: wp.array2d[wp.vec3],
    triangles: wp.array[wp.vec3i],
    kind: wp.array[int],
    cavity: wp.array[float],
    uv: wp.array[wp.vec2],
    paint: wp.array3d[float],
    seen: wp.array2d[int],
    size: int,
    colors: wp.array2d[wp.vec3],
    traits: wp.array2d[float],
    light: wp.array[wp.vec3],
    background: wp.array3d[wp.vec3],
    face: int,
    pixel: int,
):
    u = float(pixel % size) + 0.5
    v = float(pixel / size) + 0.5
    t = seen[face, pixel]
    if t < 0:
        cells = float(wp.static(BACKGROUND_GRID - 1))
        gx = u / float(size) * cells
        gy = v / float(size) * cells
        ix = wp.min(int(gx), wp.static(BACKGROUND_GRID - 2))
        iy = wp.min(int(gy), wp.static(BACKGROUND_GRID - 2))
        fx = gx - float(ix)
        fy = gy - float(iy)
        above = (1.0 - fx) * background[face, iy, ix] + fx * background[face, iy, ix + 1]
        below = (1.0 - fx) * background[face, iy + 1, ix] + fx * background[face, iy + 1, ix + 1]
        return (1.0 - fy) * above + fy * below
    k = triangles[t]
    p0 = points[face, k[0]]
    p1 = points[face, k[1]]
    p2 = points[face, k[2]]
    area = (p1[0] - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (p1[1] - p0[1])
    w1 = ((u - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (v - p0[1])) / area
    w2 = ((p1[0] - p0[0]) * (v - p0[1]) - (u - p0[0]) * (p1[1] - p0[1])) / area
    w0 = 1.0 - w1 - w2
    n = wp.normalize(w0 * normals[face, k[0]] + w1 * normals[face, k[1]] + w2 * normals[face, k[2]])
    if n[2] > 0.0:
        n = wp.vec3(n[0], n[1], -n[2])
    toward = light[face]
    ambient = traits[face, 0]
    specular = traits[face, 1]
    diffuse = ambient + (1.0 - ambient) * wp.max(0.75 * wp.dot(n, toward) + 0.25, 0.0)
    gloss = wp.max(wp.dot(n, wp.normalize(toward + wp.vec3(0.0, 0.0, -1.0))), 0.0)
    gloss = gloss * gloss
    gloss = gloss * gloss
    gloss = gloss * gloss
    gloss = gloss * gloss

    place = w0 * uv[k[0]] + w1 * uv[k[1]] + w2 * uv[k[2]]
    column = wp.clamp(int(place[0] * float(wp.static(PAINT_SIZE))), 0, wp.static(PAINT_SIZE - 1))
    row = wp.clamp(int(place[1] * float(wp.static(PAINT_SIZE))), 0, wp.static(PAINT_SIZE - 1))
    dark = wp.vec3(0.09, 0.035, 0.035)
    what = kind[t]
    color = colors[face, 0]
    if what == wp.static(EYE):
        iris = paint[row, column, wp.static(IRIS)]
        color = wp.vec3(0.86, 0.85, 0.84)
        if iris > 0.5:
            color = colors[face, 4]
        if iris > 1.5:
            color = wp.vec3(0.02, 0.02, 0.02)
        gloss = gloss * 2.0
    elif what == wp.static(TONGUE):
        color = wp.vec3(0.42, 0.18, 0.17)
        gloss = 0.0
    elif what == wp.static(TEETH):
        openness = traits[face, 5]
        color = openness * wp.vec3(0.88, 0.86, 0.80) + (1.0 - openness) * dark
        gloss = 0.0
    else:
        lips = _soft(paint[row, column, wp.static(LIPS)])
        brow = traits[face, 3] * _soft(paint[row, column, wp.static(BROW)] - traits[face, 2])
        hair = _soft(0.4 * (paint[row, column, wp.static(HAIR)] - traits[face, 4]))
        inside = w0 * cavity[k[0]] + w1 * cavity[k[1]] + w2 * cavity[k[2]]
        color = (1.0 - lips) * color + lips * colors[face, 1]
        color = (1.0 - brow) * color + brow * colors[face, 2]
        color = (1.0 - hair) * color + hair * colors[face, 3]
        color = (1.0 - paint[row, column, wp.static(SHADE)]) * color
        color = (1.0 - inside) * color + inside * dark
        gloss = gloss * (1.0 - inside) * (1.0 + 1.5 * lips)
    shine = specular * gloss
    return diffuse * color + wp.vec3(shine, shine, shine)


@wp.kernel
def shade(
    points: wp.array2d[wp.vec3],
    normals: wp.array2d[wp.vec3],
    triangles: wp.array[wp.vec3i],
    kind: wp.array[int],
    cavity: wp.array[float],
    uv: wp.array[wp.vec2],
    paint: wp.array3d[float],
    seen: wp.array2d[int],
    size: int,
    colors: wp.array2d[wp.vec3],
    traits: wp.array2d[float],
    light: wp.array[wp.vec3],
    background: wp.array3d[wp.vec3],
    lanes: int,
    image: wp.array2d[wp.vec3],
):
    face, lane = wp.tid()
    for pixel in range(lane, size * size, lanes):
        image[face, pixel] = _color(
            points,
            normals,
            triangles,
            kind,
            cavity,
            uv,
            paint,
            seen,
            size,
            colors,
            traits,
            light,
            background,
            face,
            pixel,
        )
