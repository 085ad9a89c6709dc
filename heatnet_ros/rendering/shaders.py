"""GLSL of the rasteriser: one program that shades, one that only writes depth."""

VERTEX = """
#version 330
uniform mat4 T_clip_world; uniform mat4 T_camera_world; uniform mat4 T_world_object;
uniform mat4 T_light_world;
in vec3 in_position; in vec3 in_normal; in vec3 in_color; in vec2 in_uv;
out vec3 world; out vec3 normal; out vec3 color; out vec2 uv; out float depth; out vec3 lit;
void main() {
  vec4 p = T_world_object * vec4(in_position, 1.0);
  world = p.xyz; normal = mat3(T_world_object) * in_normal; color = in_color; uv = in_uv;
  depth = (T_camera_world * p).z;
  lit = (T_light_world * p).xyz * 0.5 + 0.5;
  gl_Position = T_clip_world * p;
}"""

FRAGMENT = """
#version 330
uniform vec3 eye; uniform vec3 light_direction[2]; uniform vec3 light_color[2];
uniform vec3 ambient; uniform vec3 gain; uniform vec2 gloss; uniform float id;
uniform sampler2D image; uniform float textured; uniform float table;
uniform sampler2D contact; uniform float contact_half_m; uniform sampler2DShadow shadow;
in vec3 world; in vec3 normal; in vec3 color; in vec2 uv; in float depth; in vec3 lit;
layout(location = 0) out vec4 out_color; layout(location = 1) out vec2 out_depth_id;
void main() {
  vec3 view = normalize(eye - world);
  vec3 n = normalize(normal); if (dot(n, view) < 0.0) n = -n;
  vec3 albedo = (textured > 0.5 ? texture(image, uv).rgb : color) * gain;
  albedo *= albedo;  // sRGB to linear and back by a square: close to 2.2, and much cheaper
  float dark = 1.0;
  if (table > 0.5) dark = texture(contact, world.xy / (2.0 * contact_half_m) + 0.5).r;
  float facing = dot(n, light_direction[0]);
  float sun = facing > 0.0 ? texture(shadow, vec3(lit.xy, lit.z - 0.0025)) : 0.0;
  vec3 sum = ambient * (0.75 + 0.25 * n.z) * dark * albedo;
  for (int i = 0; i < 2; ++i) {
    float seen = i == 0 ? sun : dark;
    sum += light_color[i] * albedo * max(dot(n, light_direction[i]), 0.0) * seen;
    if (gloss.x > 0.0) {
      vec3 h = normalize(light_direction[i] + view);
      sum += light_color[i] * gloss.x * exp2(1.44 * gloss.y * (max(dot(n, h), 0.0) - 1.0)) * seen;
    }
  }
  out_color = vec4(sqrt(clamp(sum, 0.0, 1.0)), 1.0);
  out_depth_id = vec2(depth, id);
}"""

DEPTH_VERTEX = """
#version 330
uniform mat4 T_clip_object; uniform vec4 z_row;
in vec3 in_position; out float depth;
void main() {
  depth = dot(z_row, vec4(in_position, 1.0)); gl_Position = T_clip_object * vec4(in_position, 1.0);
}"""

DEPTH_FRAGMENT = """
#version 330
in float depth; out float out_depth;
void main() { out_depth = depth; }"""
